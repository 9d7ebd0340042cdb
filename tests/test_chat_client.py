"""Asking: replies, the store, and tries again, against a server that behaves as badly as real ones do."""

from __future__ import annotations

import asyncio
import threading

import pytest

from longalign_core.chat_client import CallFailedError, ChatClient, ChatReply
from longalign_core.errors import EndpointError
from tests.chat_setup import FastClock, ask, in_turn, request_of, with_client
from tests.fake_chat_server import FakeChatServer, Fault, completion, error_body


def test_ask_answered_request_gives_text_usage_and_sends_what_was_asked(responses):
    with FakeChatServer(lambda body: "four words of reply") as server:
        reply = with_client(server.url, responses, lambda client: client.ask(request_of("two words", seed=7)))
        (body,) = server.requests
    assert (reply.text, reply.prompt_tokens, reply.reply_tokens, reply.stored) == ("four words of reply", 2, 4, False)
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "two words"}],
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 16,
        "seed": 7,
    }


def test_ask_same_request_again_comes_from_the_store_even_at_another_endpoint(responses):
    with FakeChatServer(in_turn("first", "second")) as server:
        ask(server.url, responses)
    with FakeChatServer(lambda body: "elsewhere") as other:
        reply = ask(other.url, responses)
        assert other.requests == []
    assert (reply.text, reply.stored) == ("first", True)


def test_ask_identical_requests_at_once_are_sent_once(responses):
    async def work(client: ChatClient) -> tuple[list[ChatReply], int, int, int]:
        replies = await asyncio.gather(*(client.ask(request_of("same", purpose=str(n))) for n in range(10)))
        return replies, client.num_calls, client.num_stored, client.prompt_tokens

    with FakeChatServer(lambda body: "once") as server:
        replies, num_calls, num_stored, prompt_tokens = with_client(server.url, responses, work)
        assert len(server.requests) == 1
    assert {reply.text for reply in replies} == {"once"}
    assert (num_calls, num_stored, prompt_tokens) == (1, 9, 10)


def test_request_key_changes_with_everything_but_the_purpose():
    base = request_of("words")
    others = [
        request_of("other words"),
        request_of("words", model="n"),
        request_of("words", temperature=0.5),
        request_of("words", top_p=0.5),
        request_of("words", max_tokens=17),
        request_of("words", repeat=1),
        request_of("words", seed=0),
        request_of("words", weights="a"),
        request_of("words", weights="b"),
    ]
    assert len({base.key, *(other.key for other in others)}) == 10
    assert base.key == request_of("words", purpose="another", temperature=1).key


def test_ask_many_requests_keeps_to_the_limit_in_flight(responses):
    together = threading.Barrier(3)

    def respond(body: dict) -> str:
        together.wait(timeout=20)  # Passes only when three are under way at once.
        return "reply"

    async def work(client: ChatClient) -> None:
        await asyncio.gather(*(client.ask(request_of(f"number {n}")) for n in range(12)))

    with FakeChatServer(respond) as server:
        with_client(server.url, responses, work, max_in_flight=3)
        assert server.peak_in_flight == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=408),
        Fault(status=409),
        Fault(status=429),
        Fault(status=500),
        Fault(status=503, body="<html>busy</html>"),
        Fault(drop_connection=True),
        Fault(status=200, body=completion("reply")[:-20]),
        Fault(status=200, body="<html>a proxy's page</html>"),
        Fault(status=200, body='{"choices": []}'),
        Fault(status=200, body="[]"),
    ],
    ids=lambda fault: f"{fault.status} {fault.body[:12]} {fault.drop_connection}",
)
def test_ask_passing_fault_is_tried_again_until_answered(responses, fault):
    with FakeChatServer(in_turn(fault, fault, "at last")) as server:
        assert ask(server.url, responses).text == "at last"
        assert len(server.requests) == 3


def test_ask_reply_that_never_comes_is_tried_again_after_the_timeout(responses):
    with FakeChatServer(in_turn(Fault(status=200, delay=60), "at last")) as server:
        assert ask(server.url, responses, timeout_seconds=0.3, max_retries=100).text == "at last"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=500), "server error"),
        (Fault(status=429), "rate limited"),
        (Fault(drop_connection=True), "connection failed"),
        (Fault(status=200, delay=60), "timed out"),
        (Fault(status=200, body="{"), "malformed reply"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ask_passing_fault_that_stays_is_given_up_with_a_reason(responses, fault, reason):
    with FakeChatServer(lambda body: fault) as server:
        with pytest.raises(CallFailedError) as caught:
            ask(server.url, responses, timeout_seconds=0.3 if reason == "timed out" else 10, max_retries=1)
        assert len(server.requests) == 2
    assert caught.value.reason == reason
    assert len(responses) == 0


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (400, "context_length_exceeded", "prompt too long"),
        (413, "too_large", "prompt too long"),
        (400, "content_filter", "content filter"),
        (422, "odd_parameter", "request refused"),
    ],
)
def test_ask_request_that_cannot_work_is_given_up_at_once(responses, status, code, reason):
    with FakeChatServer(lambda body: Fault(status=status, body=error_body("no", code))) as server:
        with pytest.raises(CallFailedError) as caught:
            ask(server.url, responses)
        assert len(server.requests) == 1
    assert caught.value.reason == reason


def test_ask_retry_after_in_seconds_is_waited_for(responses):
    clock = FastClock()
    with FakeChatServer(in_turn(Fault(status=429, headers={"Retry-After": "37"}), "at last")) as server:
        ask(server.url, responses, clock=clock)
    assert 37 <= clock.now - 1000 <= 38


def test_ask_retry_after_as_a_date_is_waited_for(responses):
    clock = FastClock()
    at_1090 = "Thu, 01 Jan 1970 00:18:10 GMT"
    with FakeChatServer(in_turn(Fault(status=503, headers={"Retry-After": at_1090}), "at last")) as server:
        ask(server.url, responses, clock=clock)
    assert 90 <= clock.now - 1000 <= 91


def test_ask_retry_after_of_one_call_holds_back_the_others(responses):
    clock = FastClock()

    async def work(client: ChatClient) -> None:
        await asyncio.gather(*(client.ask(request_of(f"number {n}")) for n in range(3)))

    with FakeChatServer(in_turn(Fault(status=429, headers={"Retry-After": "50"}), "reply")) as server:
        with_client(server.url, responses, work, clock=clock, max_in_flight=1)
        assert len(server.requests) == 4
    assert 50 <= clock.now - 1000 <= 52


def test_ask_retry_after_of_a_day_stops_instead_of_waiting(responses):
    clock = FastClock()
    with (
        FakeChatServer(lambda body: Fault(status=429, headers={"Retry-After": "86400"})) as server,
        pytest.raises(EndpointError, match="86400 seconds"),
    ):
        ask(server.url, responses, clock=clock)
    assert clock.waits == []


@pytest.mark.parametrize(("text", "finish_reason"), [("half a repl", "length"), ("", "stop"), (None, "content_filter")])
def test_ask_reply_of_no_use_is_handed_on_once_and_kept(responses, text, finish_reason):
    body = completion(text, finish_reason=finish_reason)
    with FakeChatServer(lambda _: Fault(status=200, body=body)) as server:
        reply = ask(server.url, responses)
        again = ask(server.url, responses)
        assert len(server.requests) == 1
    assert (reply.text, reply.finish_reason) == (text or "", finish_reason)
    assert (again.text, again.finish_reason, again.stored) == (text or "", finish_reason, True)


def test_ask_reply_without_usage_leaves_the_counts_unknown(responses):
    with FakeChatServer(lambda _: Fault(status=200, body=completion("words", usage={}))) as server:
        reply = ask(server.url, responses)
    assert (reply.prompt_tokens, reply.reply_tokens) == (None, None)


def test_fault_mix_every_call_ends_answered_or_with_a_reason(responses):
    """Each request meets faults that its own words choose; a call is answered iff it has tries left."""
    faults = {
        0: Fault(status=500),
        1: Fault(drop_connection=True),
        2: Fault(status=429, headers={"Retry-After": "1"}),
        3: Fault(status=200, body="{"),
    }
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def respond(body: dict) -> str | Fault:
        number = int(body["messages"][0]["content"])
        with lock:
            tries = seen[str(number)] = seen.get(str(number), 0) + 1
        return faults[number % 4] if tries <= number % 5 else f"reply {number}"

    async def work(client: ChatClient) -> list[ChatReply | BaseException]:
        return await asyncio.gather(*(client.ask(request_of(str(n))) for n in range(60)), return_exceptions=True)

    with FakeChatServer(respond) as server:
        outcomes = with_client(server.url, responses, work, max_retries=3)
    for number, outcome in enumerate(outcomes):
        if number % 5 <= 3:
            assert isinstance(outcome, ChatReply) and outcome.text == f"reply {number}"
        else:
            assert isinstance(outcome, CallFailedError) and outcome.reason
    assert len(responses) == 48


def test_ask_requests_at_once_arrive_in_the_order_asked(responses):
    async def work(client: ChatClient) -> None:
        await asyncio.gather(*(client.ask(request_of(f"number {n}")) for n in range(300)))

    with FakeChatServer(lambda body: "yes") as server:
        with_client(server.url, responses, work, max_in_flight=1)
        arrived = [body["messages"][0]["content"] for body in server.requests]
    assert arrived == [f"number {n}" for n in range(300)]
