"""The client and a budget: one ticket a request, settled or abandoned exactly once, whatever happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from longalign_core.chat_client import CallFailedError, ChatClient, ChatReply, ChatRequest, Endpoint, ResponseStore
from longalign_core.errors import BudgetError, EndpointError, StoreError
from tests.chat_setup import FastClock, free_port, in_turn, request_of
from tests.fake_chat_server import FakeChatServer, Fault, error_body


class Purse:
    """A budget in calls: each takes one, one that is surely not charged gives it back; it waits as a real one does."""

    def __init__(self, calls: int = 1000) -> None:
        self.left = calls
        self.open: dict[str, ChatRequest] = {}
        self.ends: dict[str, str] = {}
        self._freed = asyncio.Condition()

    async def admit(self, request: ChatRequest) -> str:
        async with self._freed:
            while self.left < 1:
                if not self.open:
                    raise BudgetError("the budget is spent; raise it, then run again")
                await self._freed.wait()
            self.left -= 1
        ticket = f"{len(self.open) + len(self.ends)} {request.purpose}"
        self.open[ticket] = request
        return ticket

    def settle(self, ticket: str, reply: ChatReply) -> None:
        self._end(ticket, f"settled {reply.text}")

    def abandon(self, ticket: str, *, sent: bool) -> None:
        self.left += not sent
        self._end(ticket, "charged perhaps" if sent else "free")

    def _end(self, ticket: str, how: str) -> None:
        del self.open[ticket]  # Fails for a ticket that was ended before.
        self.ends[ticket] = how
        self._waking = asyncio.ensure_future(self._wake())

    async def _wake(self) -> None:
        async with self._freed:
            self._freed.notify_all()


def spend(
    url: str,
    responses: ResponseStore,
    work: Callable[[ChatClient], Awaitable[object]],
    *,
    calls: int = 1000,
    max_in_flight: int = 4,
    max_retries: int = 2,
    timeout_seconds: float = 20.0,
) -> tuple[object, Purse]:
    """What came of the work, an error included, and the purse after the client was closed."""

    async def run() -> tuple[object, Purse]:
        purse = Purse(calls)
        outcome: object
        try:
            async with ChatClient(
                Endpoint(url, "generator"),
                responses,
                max_in_flight=max_in_flight,
                timeout_seconds=timeout_seconds,
                max_retries=max_retries,
                spending=purse,
                clock=FastClock(),
            ) as client:
                outcome = await work(client)
        except Exception as error:
            outcome = error
        assert purse.open == {}, "a ticket was neither settled nor abandoned"
        return outcome, purse

    return asyncio.run(run())


def all_of(number: int) -> Callable[[ChatClient], Awaitable[list[ChatReply | BaseException]]]:
    async def work(client: ChatClient) -> list[ChatReply | BaseException]:
        asked = (client.ask(request_of(f"number {n}")) for n in range(number))
        return await asyncio.gather(*asked, return_exceptions=True)

    return work


def test_ticket_of_an_answered_call_is_settled_with_its_reply(responses):
    with FakeChatServer(lambda body: "words") as server:
        _, purse = spend(server.url, responses, all_of(3))
    assert list(purse.ends.values()) == ["settled words"] * 3


def test_ticket_is_not_asked_for_a_stored_reply_nor_twice_for_the_same_request(responses):
    async def twice(client: ChatClient) -> None:
        await asyncio.gather(*(client.ask(request_of("same")) for _ in range(5)))

    with FakeChatServer(lambda body: "words") as server:
        _, purse = spend(server.url, responses, twice)
        assert len(purse.ends) == 1
        _, purse = spend(server.url, responses, twice)
        assert purse.ends == {}


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        (Fault(status=500), "free"),
        (Fault(status=429), "free"),
        (Fault(status=401), "free"),
        (Fault(status=400, body=error_body("no", "context_length_exceeded")), "free"),
        (Fault(drop_connection=True), "charged perhaps"),
        (Fault(status=200, body="{"), "charged perhaps"),
        (Fault(status=200, delay=60), "charged perhaps"),
    ],
    ids=["500", "429", "401", "400", "dropped", "malformed", "timeout"],
)
def test_ticket_of_a_call_given_up_tells_whether_it_may_be_charged(responses, fault, end):
    with FakeChatServer(lambda body: fault) as server:
        outcome, purse = spend(
            server.url,
            responses,
            lambda client: client.ask(request_of("a")),
            timeout_seconds=0.3 if fault.delay else 20,
        )
    assert isinstance(outcome, (CallFailedError, EndpointError))
    assert set(purse.ends.values()) == {end}
    assert len(purse.ends) == (3 if end == "charged perhaps" else 1)


def test_ticket_of_a_call_that_reached_nobody_is_free(responses):
    outcome, purse = spend(f"http://127.0.0.1:{free_port()}/v1", responses, lambda client: client.ask(request_of("a")))
    assert isinstance(outcome, EndpointError)
    assert list(purse.ends.values()) == ["free"]


def test_ticket_of_a_try_that_may_be_charged_stays_and_the_next_try_has_its_own(responses):
    faults = in_turn(Fault(status=200, body="{"), Fault(status=500))
    with FakeChatServer(faults) as server:
        _, purse = spend(server.url, responses, lambda client: client.ask(request_of("a")))
    assert list(purse.ends.values()) == ["charged perhaps", "free"]


def test_ticket_after_failed_tries_is_settled_once(responses):
    with FakeChatServer(in_turn(Fault(status=500), Fault(status=200, body="{"), "at last")) as server:
        _, purse = spend(server.url, responses, lambda client: client.ask(request_of("a")))
    assert list(purse.ends.values()) == ["charged perhaps", "settled at last"]


def test_budget_used_up_by_tries_that_may_be_charged_sends_no_further_one(responses):
    with FakeChatServer(lambda body: Fault(drop_connection=True)) as server:
        outcome, purse = spend(server.url, responses, all_of(1), calls=3, max_retries=9)
        assert len(server.requests) == 3
    assert isinstance(outcome[0], BudgetError)
    assert list(purse.ends.values()) == ["charged perhaps"] * 3


def test_ticket_of_a_request_that_cannot_be_written_down_is_free(responses):
    with FakeChatServer(lambda body: "words") as server:
        outcome, purse = spend(server.url, responses, lambda client: client.ask(request_of("half \ud83d")))
        assert server.requests == []
    assert isinstance(outcome, CallFailedError)
    assert list(purse.ends.values()) == ["free"]


def test_budget_used_up_stops_all_further_calls_and_keeps_every_reply(responses):
    with FakeChatServer(lambda body: "words") as server:
        outcomes, purse = spend(server.url, responses, all_of(20), calls=7)
        assert len(server.requests) == 7
    assert sum(isinstance(outcome, ChatReply) for outcome in outcomes) == 7
    refused = [outcome for outcome in outcomes if not isinstance(outcome, ChatReply)]
    assert all(isinstance(error, BudgetError) and "raise it" in str(error) for error in refused)
    assert len(responses) == 7
    assert sorted(purse.ends.values()) == ["settled words"] * 7


def test_budget_that_waits_for_calls_under_way_blocks_no_call_that_is_tried_again(responses):
    """One call's worth of budget, and as many waiting for it as there are places: the retry must get one of them."""
    faults = in_turn(*[Fault(status=500, body=error_body("no"))] * 2, "words")
    with FakeChatServer(faults) as server:
        outcomes, purse = spend(server.url, responses, all_of(6), calls=1, max_in_flight=2, max_retries=5)
        assert len(server.requests) == 3
    assert sum(isinstance(outcome, ChatReply) for outcome in outcomes) == 1
    assert list(purse.ends.values()) == ["settled words"]


def test_budget_given_back_by_calls_that_cost_nothing_goes_to_the_next(responses):
    """All requests but one are refused unpaid, so one call's worth of budget reaches that one, whatever the order."""

    def respond(body: dict) -> str | Fault:
        number = int(body["messages"][0]["content"].split()[1])
        return "words" if number == 5 else Fault(status=400, body=error_body("no", "context_length_exceeded"))

    with FakeChatServer(respond) as server:
        outcomes, purse = spend(server.url, responses, all_of(6), calls=1, max_in_flight=3)
    assert isinstance(outcomes[5], ChatReply)
    ends = sorted(purse.ends.values())
    assert ends == ["free"] * (len(ends) - 1) + ["settled words"]
    assert sum(isinstance(outcome, BudgetError) for outcome in outcomes) == 6 - len(ends)


def test_ticket_of_a_cancelled_call_under_way_may_be_charged_and_of_a_waiting_one_is_free(responses):
    arrived = threading.Event()

    def respond(body: dict) -> Fault:
        arrived.set()
        return Fault(status=200, delay=60)

    async def work(client: ChatClient) -> None:
        asked = [asyncio.ensure_future(client.ask(request_of(str(n)))) for n in range(3)]
        await asyncio.to_thread(arrived.wait, 20)
        for task in asked:
            task.cancel()
        raise asyncio.CancelledError  # As Ctrl-C does: nothing is waited for.

    async def run() -> list[str]:
        purse = Purse()
        client = ChatClient(
            Endpoint(server.url, "generator"),
            responses,
            max_in_flight=1,
            timeout_seconds=20,
            max_retries=0,
            spending=purse,
            clock=FastClock(),
        )
        try:
            async with client:
                await work(client)
        except asyncio.CancelledError:
            pass
        assert purse.open == {}
        return sorted(purse.ends.values())

    with FakeChatServer(respond) as server:
        assert asyncio.run(run()) == ["charged perhaps"]


def test_store_that_cannot_keep_a_reply_ends_the_ticket_as_charged_and_stops_further_calls(tmp_path):
    responses = ResponseStore(tmp_path / "replies.sqlite")

    def respond(body: dict) -> str:
        responses.close()  # As a file that was taken away between question and reply.
        return "words"

    with FakeChatServer(respond) as server:
        outcomes, purse = spend(server.url, responses, all_of(200), max_in_flight=1)
        # While the first reply fails to be kept, its place is given on, so a few more may be sent.
        assert len(server.requests) < 200
        assert list(purse.ends.values()) == ["charged perhaps"] * len(server.requests)
    assert all(isinstance(outcome, StoreError) for outcome in outcomes)


def test_ledger_that_cannot_be_written_stops_further_calls(responses):
    class LostPurse(Purse):
        def settle(self, ticket: str, reply: ChatReply) -> None:
            raise StoreError("the ledger cannot be written; free disk space")

        def abandon(self, ticket: str, *, sent: bool) -> None:
            raise StoreError("the ledger cannot be written; free disk space")

    async def run(reply: str | Fault) -> int:
        with FakeChatServer(lambda body: reply) as server:
            async with ChatClient(
                Endpoint(server.url, "generator"),
                responses,
                max_in_flight=1,
                timeout_seconds=20,
                max_retries=0,
                spending=LostPurse(),
                clock=FastClock(),
            ) as client:
                outcomes = await all_of(200)(client)
            assert all(isinstance(outcome, StoreError) for outcome in outcomes)
            return len(server.requests)

    assert asyncio.run(run(Fault(status=500))) < 200
    # Calls go out while the first reply is written to disk, so how many depends on the disk.
    assert asyncio.run(run("words")) < 200


def test_fault_mix_every_ticket_ends_once_and_no_more_calls_are_under_way_than_the_budget_has(responses):
    faults = [Fault(status=500), Fault(drop_connection=True), Fault(status=200, body="{"), Fault(status=429)]
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def respond(body: dict) -> str | Fault:
        words = body["messages"][0]["content"]
        number = int(words.split()[1])
        with lock:
            tries = seen[words] = seen.get(words, 0) + 1
        return faults[number % 4] if tries <= number % 4 else f"reply {number}"

    with FakeChatServer(respond) as server:
        outcomes, purse = spend(server.url, responses, all_of(40), calls=100, max_in_flight=8)
    answered = [outcome for outcome in outcomes if isinstance(outcome, ChatReply)]
    settled = [end for end in purse.ends.values() if end.startswith("settled")]
    # Ten calls were broken off once, and ten gave half a reply twice, before a try that was answered or refused.
    assert len(purse.ends) == 40 + 10 + 20
    assert sorted(settled) == sorted(f"settled {reply.text}" for reply in answered)
    assert len(answered) == len(responses) == 30
