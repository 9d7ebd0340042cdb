"""The client under an endpoint's limits: order, pace, overload, and the circuit breaker."""

from __future__ import annotations

import asyncio
import threading

import pytest

from longalign_core.chat_client import ChatClient, ChatReply
from longalign_core.errors import EndpointError
from tests.chat_setup import FastClock, in_turn, request_of, with_client
from tests.fake_chat_server import FakeChatServer, Fault, completion, error_body


def words_of(server: FakeChatServer) -> list[str]:
    return [body["messages"][0]["content"] for body in server.requests]


def test_ask_second_call_of_a_document_goes_before_first_calls_of_others(responses):
    go = threading.Event()

    def respond(body: dict) -> str:
        if body["messages"][0]["content"] == "under way":
            go.wait(timeout=20)
        return "reply"

    async def work(client: ChatClient) -> None:
        asked = [asyncio.ensure_future(client.ask(request_of("under way")))]
        while not server.requests:
            await asyncio.sleep(0.01)
        asked += [asyncio.ensure_future(client.ask(request_of(f"first {n}"))) for n in range(3)]
        asked.append(asyncio.ensure_future(client.ask(request_of("second", continues=True))))
        # The store is read for one request after the other: once this one is there, the others wait to be sent.
        assert (await client.ask(request_of("answered before"))).stored
        go.set()
        await asyncio.gather(*asked)

    with FakeChatServer(respond) as server:
        with_client(server.url, responses, lambda client: client.ask(request_of("answered before")))
        server.requests.clear()
        with_client(server.url, responses, work, max_in_flight=1)
        assert words_of(server) == ["under way", "second", "first 0", "first 1", "first 2"]


def test_ask_one_slow_call_delays_no_other(responses):
    go = threading.Event()

    def respond(body: dict) -> str:
        if body["messages"][0]["content"] == "slow":
            go.wait(timeout=20)
        return "reply"

    async def work(client: ChatClient) -> None:
        slow = asyncio.ensure_future(client.ask(request_of("slow")))
        await asyncio.gather(*(client.ask(request_of(f"number {n}")) for n in range(30)))
        assert not slow.done()
        go.set()
        await slow

    with FakeChatServer(respond) as server:
        with_client(server.url, responses, work, max_in_flight=2)
        assert len(server.requests) == 31


def test_ask_call_between_two_tries_holds_up_no_other(responses):
    """The first try of one call fails; with a single place, the others are answered before its wait is over."""

    class PatientClock(FastClock):
        async def sleep(self, seconds: float) -> None:
            await over.wait()
            await super().sleep(seconds)

    over = asyncio.Event()
    failed = threading.Event()

    def respond(body: dict) -> str | Fault:
        if body["messages"][0]["content"] == "unlucky" and not failed.is_set():
            failed.set()
            return Fault(status=500)
        return "reply"

    async def work(client: ChatClient) -> None:
        unlucky = asyncio.ensure_future(client.ask(request_of("unlucky")))
        await asyncio.to_thread(failed.wait, 20)
        await asyncio.gather(*(client.ask(request_of(f"number {n}")) for n in range(5)))
        assert not unlucky.done()
        over.set()
        assert (await unlucky).text == "reply"
        assert client.num_retries == 1

    with FakeChatServer(respond) as server:
        with_client(server.url, responses, work, max_in_flight=1, clock=PatientClock())


def test_ask_server_that_takes_few_at_once_answers_all_in_the_end(responses):
    """A server that refuses more than three at once: the client finds out and few tries are wasted."""
    lock = threading.Lock()
    together = [0]

    def respond(body: dict) -> str | Fault:
        with lock:
            together[0] += 1
            refused = together[0] > 3
        try:
            threading.Event().wait(0.01)
            return Fault(status=429) if refused else "reply"
        finally:
            with lock:
                together[0] -= 1

    async def work(client: ChatClient) -> tuple[list[ChatReply], int]:
        replies = await asyncio.gather(*(client.ask(request_of(f"number {n}")) for n in range(200)))
        return replies, client.num_retries

    with FakeChatServer(respond) as server:
        replies, num_retries = with_client(server.url, responses, work, max_in_flight=32, max_retries=50)
    assert len(replies) == 200
    # Without the lowered limit nine in ten tries of 32 at once would be refused.
    assert num_retries < 200


def test_ask_limit_told_by_headers_is_kept_to_by_waiting(responses):
    clock = FastClock()
    level = {"value": 3.0, "at": clock.now}
    lock = threading.Lock()

    def respond(body: dict) -> Fault:
        """Three requests a minute: a bucket that fills by one in twenty seconds."""
        with lock:
            level["value"] = min(3.0, level["value"] + (clock.now - level["at"]) / 20)
            level["at"] = clock.now
            if level["value"] < 1 - 1e-6:
                return Fault(status=429)
            level["value"] -= 1
            headers = {
                "x-ratelimit-limit-requests": "3",
                "x-ratelimit-remaining-requests": str(int(level["value"] + 1e-6)),
                "x-ratelimit-reset-requests": f"{(3 - level['value']) * 20:.3f}s",
            }
        return Fault(status=200, headers=headers, body=completion("reply"))

    async def work(client: ChatClient) -> int:
        await client.ask(request_of("first"))
        await asyncio.gather(*(client.ask(request_of(f"number {n}")) for n in range(12)))
        return client.num_retries

    with FakeChatServer(respond) as server:
        # One at a time, so that this clock, which jumps, stands still while a request is on its way to the server.
        num_retries = with_client(server.url, responses, work, max_in_flight=1, clock=clock)
    assert num_retries == 0
    assert clock.now - 1000 == pytest.approx(200, abs=1)


def test_ask_limit_smaller_than_one_call_does_not_wait_for_ever(responses):
    headers = {"x-ratelimit-limit-tokens": "10", "x-ratelimit-remaining-tokens": "0"}
    clock = FastClock()

    async def work(client: ChatClient) -> None:
        for n in range(3):
            await client.ask(request_of(f"number {n} " + "long " * 100, max_tokens=1000))

    with FakeChatServer(lambda body: Fault(status=200, headers=headers, body=completion("reply"))) as server:
        with_client(server.url, responses, work, clock=clock)
        assert len(server.requests) == 3
    assert clock.now - 1000 == pytest.approx(120, abs=1)


def test_ask_headers_of_no_sense_change_nothing(responses):
    headers = {"x-ratelimit-limit-tokens": "lots", "x-ratelimit-remaining-tokens": "", "retry-after": "later"}
    clock = FastClock()
    with FakeChatServer(lambda body: Fault(status=200, headers=headers, body=completion("reply"))) as server:
        with_client(server.url, responses, lambda client: client.ask(request_of("a")), clock=clock)
    assert clock.waits == []


def test_key_that_expires_while_calls_are_under_way_ends_with_its_variable_and_keeps_their_replies(
    responses, monkeypatch
):
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", "expiring")
    expired, refused = threading.Event(), threading.Event()

    def respond(body: dict) -> str | Fault:
        if body["messages"][0]["content"] == "number 5":
            expired.set()
        if expired.is_set() and not body["messages"][0]["content"].startswith("slow"):
            refused.set()
            return Fault(status=401, body=error_body("expired", "invalid_api_key"))
        if body["messages"][0]["content"].startswith("slow"):
            refused.wait(timeout=20)
            threading.Event().wait(0.2)
        return "reply"

    async def work(client: ChatClient) -> list[ChatReply | BaseException]:
        slow = [asyncio.ensure_future(client.ask(request_of(f"slow {n}"))) for n in range(2)]
        outcomes: list[ChatReply | BaseException] = []
        for n in range(30):
            outcomes += await asyncio.gather(client.ask(request_of(f"number {n}")), return_exceptions=True)
        return [*outcomes, *await asyncio.gather(*slow)]

    with FakeChatServer(respond) as server:
        outcomes = with_client(server.url, responses, work)
        assert len(server.requests) == 8
    errors = [outcome for outcome in outcomes if not isinstance(outcome, ChatReply)]
    assert len(errors) == 25
    assert {str(error) for error in errors} == {str(errors[0])}
    assert isinstance(errors[0], EndpointError)
    assert "refuses the key in LONGALIGN_GENERATOR_API_KEY" in str(errors[0])
    assert len(responses) == 7


def test_ask_unknown_model_in_the_middle_sends_no_further_call(responses):
    replies = in_turn("one", Fault(status=404, body=error_body("gone", "model_not_found")))

    async def work(client: ChatClient) -> list[ChatReply | BaseException]:
        asked = (client.ask(request_of(f"number {n}")) for n in range(50))
        return await asyncio.gather(*asked, return_exceptions=True)

    with FakeChatServer(replies) as server:
        outcomes = with_client(server.url, responses, work, max_in_flight=1)
        assert len(server.requests) == 2
    assert sum(isinstance(outcome, EndpointError) for outcome in outcomes) == 49


def test_ask_twenty_failures_in_a_row_stop_but_not_with_an_answer_between(responses):
    async def work(client: ChatClient) -> int:
        failed = 0
        for n in range(60):
            (outcome,) = await asyncio.gather(client.ask(request_of(f"number {n}")), return_exceptions=True)
            if isinstance(outcome, EndpointError):
                return failed + 1
            failed += not isinstance(outcome, ChatReply)
        return failed

    def nearly_all_fail(body: dict) -> str | Fault:
        return "reply" if body["messages"][0]["content"] == "number 19" else Fault(status=500)

    with FakeChatServer(nearly_all_fail) as server:
        assert with_client(server.url, responses, work, max_retries=0) == 39


def test_ask_without_a_temperature_sends_none(responses):
    with FakeChatServer(lambda body: "hello") as server:
        with_client(server.url, responses, lambda client: client.ask(request_of("a", temperature=None)))
        assert "temperature" not in server.requests[0]


def test_client_counts_cached_tokens_of_replies_handed_on(responses):
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 7}}

    async def work(client: ChatClient) -> tuple[int, int, int]:
        await client.ask(request_of("a"))
        return client.prompt_tokens, client.cached_tokens, client.reply_tokens

    with FakeChatServer(lambda body: Fault(status=200, body=completion("reply", usage=usage))) as server:
        assert with_client(server.url, responses, work) == (9, 7, 2)
