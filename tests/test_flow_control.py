"""Places in flight, the order of calls, and waiting, under a clock that runs only when somebody waits."""

from __future__ import annotations

import asyncio
import random

import pytest

from longalign_core.chat_client.flow_control import CONTINUING, FRESH, RESUMED, AdaptiveLimit, Gate
from longalign_core.chat_client.rate_limits import Cost, LimitReport
from longalign_core.errors import BudgetError, EndpointError
from tests.chat_setup import FastClock

SMALL = Cost(1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_limit_whatever_happens_stays_between_one_and_the_most(seed):
    draw = random.Random(seed)
    limit = AdaptiveLimit(draw.randint(1, 64))
    for _ in range(500):
        before = limit.places
        if draw.random() < 0.4:
            limit.overloaded(limit.epoch - draw.randint(0, 1))
            assert limit.places <= before
        else:
            limit.succeeded()
            assert before <= limit.places <= before + 1
        assert 1 <= limit.places <= limit.most


def test_limit_a_whole_round_of_failures_lowers_it_once():
    limit = AdaptiveLimit(100)
    sent = [limit.epoch] * 100
    for epoch in sent:
        limit.overloaded(epoch)
    assert limit.places == 70
    limit.overloaded(limit.epoch)
    assert limit.places == 49


def test_limit_grows_by_about_one_a_round_trip():
    limit = AdaptiveLimit(100)
    for _ in range(6):
        limit.overloaded(limit.epoch)
    start = limit.places
    assert start == 11
    for _ in range(10):
        for _ in range(limit.places):
            limit.succeeded()
    assert start + 9 <= limit.places <= start + 11


def test_limit_never_falls_below_one_and_recovers():
    limit = AdaptiveLimit(2)
    for _ in range(50):
        limit.overloaded(limit.epoch)
    assert limit.places == 1
    limit.succeeded()
    assert limit.places == 2


class HandClock(FastClock):
    """Time that a test moves on by hand."""

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            await asyncio.sleep(0)


class Traffic:
    """Calls through a gate, each told to end by hand."""

    def __init__(self, max_in_flight: int, clock: FastClock | None = None) -> None:
        self.clock = clock or FastClock()
        self.gate = Gate(max_in_flight, self.clock)
        self.entered: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def start(self, name: str, *, rank: int = FRESH, cost: Cost = SMALL, delay: float = 0.0) -> None:
        self._ends[name] = asyncio.Event()
        not_before = self.clock.monotonic() + delay

        async def call() -> None:
            passage = await self.gate.enter(cost, rank, self.gate.number(), not_before=not_before, claimed=False)
            self.entered.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.gate.leave(passage, None, {})

        self._tasks[name] = asyncio.create_task(call())
        await settle()

    async def end(self, name: str, steps: int = 20) -> None:
        self._ends[name].set()
        await settle(steps)

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await settle()

    async def close(self) -> list[BaseException]:
        self.gate.close(EndpointError("over"))
        for end in self._ends.values():
            end.set()
        outcomes = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        return [outcome for outcome in outcomes if outcome is not None]


async def settle(steps: int = 20) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


def test_gate_lets_resumed_calls_pass_first_then_continuing_ones_each_in_order():
    async def run() -> list[str]:
        traffic = Traffic(1)
        await traffic.start("under way")
        for name, rank in [("a", FRESH), ("b", CONTINUING), ("c", FRESH), ("d", RESUMED), ("e", CONTINUING)]:
            await traffic.start(name, rank=rank)
        for name in ("under way", "d", "b", "e", "a", "c"):
            await traffic.end(name)
        await traffic.close()
        return traffic.entered

    assert asyncio.run(run()) == ["under way", "d", "b", "e", "a", "c"]


def test_gate_a_slow_call_holds_nothing_but_its_own_place():
    async def run() -> list[str]:
        traffic = Traffic(2)
        await traffic.start("slow")
        for number in range(5):
            await traffic.start(str(number))
        for number in range(5):
            await traffic.end(str(number))
        await traffic.close()
        return traffic.entered

    assert asyncio.run(run()) == ["slow", "0", "1", "2", "3", "4"]


def test_gate_a_call_that_waits_for_its_next_try_holds_no_place_and_keeps_its_rank():
    async def run() -> None:
        clock = HandClock()
        traffic = Traffic(1, clock)
        await traffic.start("retried", rank=RESUMED, delay=30)
        await traffic.start("busy")
        await traffic.start("next")
        await traffic.end("busy")
        assert traffic.entered == ["busy", "next"]
        await traffic.start("last")
        clock.now += 30
        await settle()
        assert traffic.entered == ["busy", "next"]
        await traffic.end("next")
        assert traffic.entered == ["busy", "next", "retried"]
        await traffic.close()

    asyncio.run(run())


def test_gate_held_lets_nothing_pass_until_the_time_is_over():
    async def run() -> float:
        traffic = Traffic(4)
        traffic.gate.hold(50)
        await traffic.start("a")
        await traffic.start("b")
        assert traffic.entered == ["a", "b"]
        await traffic.close()
        return traffic.clock.now

    assert asyncio.run(run()) == pytest.approx(1050)


@pytest.mark.parametrize("steps", range(12))
def test_gate_waiter_cancelled_at_any_moment_around_its_turn_loses_no_place(steps):
    async def run() -> list[str]:
        traffic = Traffic(1)
        await traffic.start("first")
        await traffic.start("unlucky")
        await traffic.end("first", steps=steps)
        await traffic.cancel("unlucky")
        await traffic.start("last")
        await traffic.close()
        return traffic.entered

    assert asyncio.run(run())[-1] == "last"


def test_gate_closed_gives_all_that_wait_the_first_error_and_nobody_enters():
    async def run() -> None:
        traffic = Traffic(1)
        await traffic.start("under way")
        await traffic.start("waiting")
        traffic.gate.close(BudgetError("the money is spent"))
        outcomes = await traffic.close()
        assert [(type(outcome), str(outcome)) for outcome in outcomes] == [(BudgetError, "the money is spent")]
        with pytest.raises(BudgetError, match="money is spent"):
            await traffic.gate.enter(SMALL, FRESH, 9, not_before=0, claimed=False)
        with pytest.raises(BudgetError, match="money is spent"):
            await traffic.gate.claim(FRESH, 9)
        assert traffic.entered == ["under way"]

    asyncio.run(run())


@pytest.mark.parametrize("steps", range(6))
def test_gate_closed_in_the_moment_of_a_turn_lets_nobody_pass_any_more(steps):
    async def run() -> None:
        traffic = Traffic(1)
        await traffic.start("first")
        await traffic.start("second")
        await traffic.end("first", steps=steps)
        before = list(traffic.entered)
        traffic.gate.close(EndpointError("the key expired"))
        await settle()
        assert traffic.entered == before
        await traffic.close()

    asyncio.run(run())


def test_gate_claims_are_no_more_than_free_places_but_never_stand_before_admitted_calls():
    async def run() -> None:
        gate = Gate(2, FastClock())
        await gate.claim(FRESH, 0)
        await gate.claim(FRESH, 1)
        third = asyncio.create_task(gate.claim(FRESH, 2))
        await settle()
        assert not third.done()  # Two claims are all that two places give.
        # A call that was admitted before and is tried again passes all the same, and another too.
        first = await gate.enter(SMALL, RESUMED, 3, not_before=0, claimed=False)
        await gate.enter(SMALL, RESUMED, 4, not_before=0, claimed=False)
        admitted = asyncio.create_task(gate.enter(SMALL, RESUMED, 0, not_before=0, claimed=True))
        await settle()
        assert not admitted.done()
        gate.leave(first, None, {})
        await settle()
        assert admitted.done()
        assert not third.done()
        gate.close(EndpointError("over"))
        await asyncio.gather(third, admitted, return_exceptions=True)

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(5))
def test_gate_keeps_to_limits_it_has_learnt_and_wastes_no_time(seed):
    """Calls of drawn sizes behind a limit of 6000 tokens a minute, with the server's own count as the oracle."""

    async def run() -> tuple[float, float]:
        draw = random.Random(seed)
        clock = FastClock()
        gate = Gate(8, clock)
        level, filled_at, sent = 6000.0, clock.now, 0.0

        async def call(cost: Cost) -> None:
            nonlocal level, filled_at, sent
            passage = await gate.enter(cost, FRESH, gate.number(), not_before=0, claimed=False)
            level = min(6000.0, level + 100 * (clock.now - filled_at)) - cost.of("tokens")
            filled_at = clock.now
            assert level >= -1e-6, "the server would have refused it"
            sent += cost.of("tokens")
            await asyncio.sleep(0)
            gate.leave(passage, cost, {"tokens": LimitReport(6000, max(0.0, level), None)})

        await call(Cost(10, 10))
        start = clock.now
        await asyncio.gather(*(call(Cost(draw.uniform(100, 2000), 100)) for _ in range(100)))
        return sent, clock.now - start

    sent, seconds = asyncio.run(run())
    assert seconds == pytest.approx((sent - 6000) / 100, rel=0.05)
