"""When the next call may be sent: places in flight that follow the endpoint's health, rate limits, and order.

Everything waits in one place, the `Gate`, and nothing that waits holds a place in flight.
"""

from __future__ import annotations

import asyncio
import copy
import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from longalign_core.chat_client.faults import Clock
from longalign_core.chat_client.rate_limits import Cost, LimitReport, RateLimits
from longalign_core.errors import LongAlignError

# As much of the limit stays after a sign of overload; CUBIC's factor (RFC 9438, 4.6), gentler than a half.
_KEPT_BY_DECREASE = 0.7
# Times are floats: a wait that is too short by a rounding would be asked for again and again.
_SHORTEST_WAIT_SECONDS = 0.001
_NOTHING = Cost(0, 0, 0)
# Ranks: a call that was admitted or sent before goes first, then one whose prompt the provider still remembers.
RESUMED, CONTINUING, FRESH = 0, 1, 2


class AdaptiveLimit:
    """How many calls may be in flight: additive increase, multiplicative decrease (AIMD).

    Each answered call adds 1/limit, so about one a round trip; a sign of overload multiplies by 0.7,
    once a round trip: calls that were sent before the last decrease tell nothing new.

    Attributes:
        most: The highest it goes, where it starts. The lowest is 1.
    """

    def __init__(self, most: int) -> None:
        """Start at the highest."""
        self.most = most
        self._limit = float(most)
        self._num_decreases = 0

    @property
    def places(self) -> int:
        """Calls that may be in flight now."""
        return int(self._limit)

    @property
    def epoch(self) -> int:
        """What a call has to remember of the time it was sent at."""
        return self._num_decreases

    def succeeded(self) -> None:
        """A call was answered."""
        self._limit = min(float(self.most), self._limit + 1 / self._limit)

    def overloaded(self, epoch: int) -> None:
        """A call that was sent in `epoch` met a sign of overload."""
        if epoch == self._num_decreases:
            self._limit = max(1.0, self._limit * _KEPT_BY_DECREASE)
            self._num_decreases += 1


@dataclass(frozen=True, slots=True)
class Passage:
    """A place in flight, from `Gate.enter` to `Gate.leave`."""

    cost: Cost
    epoch: int


@dataclass(slots=True, order=True)
class _Waiter:
    rank: int
    number: int
    cost: Cost = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class Gate:
    """Lets calls pass in order of rank, first come first served within one, as fast as the endpoint takes them.

    With a budget to be asked, a call first claims a place, then asks the budget without holding one, and
    then enters. Claims and calls in flight together are no more than there are places, so only so many
    calls are admitted ahead; but a call that is admitted needs only a place that no call in flight holds.
    So calls that wait for the budget never stand in the way of those that will give some of it back.
    """

    def __init__(self, max_in_flight: int, clock: Clock) -> None:
        """An open gate.

        Args:
            max_in_flight: Most calls in flight at once.
            clock: Time for waits.
        """
        self.limit = AdaptiveLimit(max_in_flight)
        self.rates = RateLimits()
        self._clock = clock
        self._numbers = itertools.count()
        self._claimants: list[_Waiter] = []
        self._ready: list[_Waiter] = []
        self._later: list[tuple[float, _Waiter]] = []
        self._claims = 0
        self._in_flight = 0
        self._resume_at = -float("inf")
        self._closed: LongAlignError | None = None
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = 0.0

    def number(self) -> int:
        """The next call's place in the order; it keeps it over all its tries."""
        return next(self._numbers)

    async def claim(self, rank: int, number: int) -> None:
        """Wait for a place that this call may go for; ends with `enter(claimed=True)` or `unclaim`.

        Raises:
            LongAlignError: The gate is closed.
        """
        waiter = self._waiter(rank, number, _NOTHING)
        heapq.heappush(self._claimants, waiter)
        await self._turn_of(waiter, self.unclaim)

    def unclaim(self) -> None:
        """Give a claim up."""
        self._claims -= 1
        self._pump()

    async def enter(self, cost: Cost, rank: int, number: int, *, not_before: float, claimed: bool) -> Passage:
        """Wait until the call may be sent.

        Args:
            cost: What it may take from the rate limits.
            rank: RESUMED, CONTINUING or FRESH.
            number: Its place among those of its rank.
            not_before: Time of the clock before which it must not be sent.
            claimed: Whether it holds a claim, which ends here, however this ends.

        Raises:
            LongAlignError: The gate is closed.
        """
        try:
            waiter = self._waiter(rank, number, cost)
            heapq.heappush(self._later, (not_before, waiter))
            await self._turn_of(waiter, lambda: self._give_back(cost))
        finally:
            if claimed:
                self.unclaim()
        return Passage(cost, self.limit.epoch)

    def leave(self, passage: Passage, actual: Cost | None, reports: Mapping[str, LimitReport]) -> None:
        """Give the place to the next: the call was answered or failed.

        Args:
            passage: What `enter` gave.
            actual: What it took from the rate limits; None where nobody knows.
            reports: What the response told of the rate limits.
        """
        self._in_flight -= 1
        self.rates.end(passage.cost, actual or passage.cost, reports, self._clock.monotonic())
        self._pump()

    def hold(self, seconds: float) -> None:
        """Let nothing pass for so long: what a server asks of one call holds for all."""
        self._resume_at = max(self._resume_at, self._clock.monotonic() + seconds)

    @property
    def closed(self) -> LongAlignError | None:
        """Why nothing passes any more, as an error of its own to raise; None while the gate is open."""
        return copy.copy(self._closed)

    def close(self, error: LongAlignError) -> None:
        """Let nothing pass any more. All that wait get the error; of several the first counts."""
        self._closed = self._closed or error
        waiting = [*self._claimants, *self._ready, *(waiter for _, waiter in self._later)]
        for heap in (self._claimants, self._ready, self._later):
            heap.clear()
        for waiter in waiting:
            if not waiter.turn.done():
                waiter.turn.set_exception(copy.copy(self._closed))
        if self._timer:
            self._timer.cancel()

    def _waiter(self, rank: int, number: int, cost: Cost) -> _Waiter:
        if error := self.closed:
            raise error
        return _Waiter(rank, number, cost, asyncio.get_running_loop().create_future())

    async def _turn_of(self, waiter: _Waiter, give_back: Callable[[], None]) -> None:
        self._pump()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            # The turn may have come in the same moment as the cancellation.
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                give_back()
            raise
        if error := self.closed:  # In the moment between the turn and now.
            give_back()
            raise error

    def _give_back(self, cost: Cost) -> None:
        self._in_flight -= 1
        now = self._clock.monotonic()
        self.rates.end(cost, _NOTHING, {}, now)
        self._pump()

    def _pump(self) -> None:
        """Let pass all that may now, and see to it that this is asked again when more may."""
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappush(self._ready, heapq.heappop(self._later)[1])
        while (waiter := _first(self._ready)) and self._in_flight < self.limit.places:
            wait = max(self._resume_at - now, self.rates.wait_seconds(waiter.cost, now))
            if wait > 0:
                self._pump_at(now + wait)
                break
            heapq.heappop(self._ready)
            self._in_flight += 1
            self.rates.begin(waiter.cost, now)
            waiter.turn.set_result(None)
        while (waiter := _first(self._claimants)) and self._in_flight + self._claims < self.limit.places:
            heapq.heappop(self._claimants)
            self._claims += 1
            waiter.turn.set_result(None)
        if self._later:
            self._pump_at(self._later[0][0])

    def _pump_at(self, when: float) -> None:
        if self._timer and not self._timer.done():
            if self._timer_at <= when:
                return  # It asks again then.
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().create_task(self._pump_later(when))

    async def _pump_later(self, when: float) -> None:
        await self._clock.sleep(max(_SHORTEST_WAIT_SECONDS, when - self._clock.monotonic()))
        self._timer = None
        self._pump()


def _first(heap: list[_Waiter]) -> _Waiter | None:
    """The waiter whose turn is next; those that were cancelled are taken out."""
    while heap and heap[0].turn.done():
        heapq.heappop(heap)
    return heap[0] if heap else None
