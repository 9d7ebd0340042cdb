"""What ends all calls: endpoints that are wrong, away or closed to us; and keys, which nobody may see."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading

import pytest

from longalign_core.chat_client import CallFailedError, ChatClient, ChatReply, Endpoint
from longalign_core.errors import EndpointError, InputError
from tests.chat_setup import FastClock, ask, free_port, in_turn, request_of, with_client
from tests.fake_chat_server import FakeChatServer, Fault, error_body

KEY = "sk-very-secret-0123456789"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(status=401, body=error_body(f"bad key {KEY}")), "LONGALIGN_GENERATOR_API_KEY"),
        (Fault(status=403, body=error_body(f"bad key {KEY}")), "LONGALIGN_GENERATOR_API_KEY"),
        (Fault(status=404, body=error_body("no such model", "model_not_found")), "does not know model 'm'"),
        (Fault(status=429, body=error_body("pay", "insufficient_quota")), "add credit"),
        (Fault(status=402), "add credit"),
    ],
    ids=["401", "403", "404", "quota", "402"],
)
def test_ask_fault_of_the_endpoint_stops_every_further_call(responses, fault, told):
    async def work(client: ChatClient) -> list[ChatReply | BaseException]:
        first = await client.ask(request_of("answered"))
        assert first.text == "good"
        asked = [client.ask(request_of(f"number {n}")) for n in range(5)]
        return await asyncio.gather(*asked, return_exceptions=True)

    with FakeChatServer(in_turn("good", fault)) as server:
        outcomes = with_client(server.url, responses, work, max_in_flight=1)
        assert len(server.requests) == 2
    assert all(isinstance(outcome, EndpointError) and told in str(outcome) for outcome in outcomes)
    assert len(responses) == 1


def test_ask_server_that_went_away_stops_every_further_call(responses):
    async def work(client: ChatClient) -> None:
        await client.ask(request_of("hello"))

    with pytest.raises(EndpointError, match="cannot be reached"):
        with_client(f"http://127.0.0.1:{free_port()}/v1", responses, work)


def test_ask_nothing_but_failures_stops_in_the_end(responses):
    async def work(client: ChatClient) -> None:
        for number in range(100):
            with pytest.raises(CallFailedError):
                await client.ask(request_of(f"number {number}"))

    with FakeChatServer(lambda body: Fault(status=500)) as server:
        with pytest.raises(EndpointError, match="fails call after call"):
            with_client(server.url, responses, work, max_retries=0)
        assert len(server.requests) < 100


def test_client_closed_by_an_error_stores_replies_that_are_on_their_way(responses):
    arrived, go = threading.Event(), threading.Event()

    def respond(body: dict) -> str | Fault:
        if body["messages"][0]["content"] == "slow":
            arrived.set()
            go.wait(timeout=20)
            return "came late"
        arrived.wait(timeout=20)
        threading.Timer(0.2, go.set).start()
        return Fault(status=401)

    async def work(client: ChatClient) -> None:
        slow = asyncio.ensure_future(client.ask(request_of("slow")))
        try:
            await client.ask(request_of("refused"))
        finally:
            slow.cancel()

    with FakeChatServer(respond) as server, pytest.raises(EndpointError):
        with_client(server.url, responses, work)
    assert responses.get(request_of("slow").key).text == "came late"


def test_check_endpoint_in_order_passes_and_spends_nothing(responses):
    with FakeChatServer(lambda body: "reply", models=["org/m"]) as server:
        with_client(server.url, responses, lambda client: client.check("org/m"))
        assert server.requests == []


def test_check_unknown_model_says_so(responses):
    with (
        FakeChatServer(lambda body: "reply", models=["other"]) as server,
        pytest.raises(EndpointError, match=r"does not know model 'm'.*ends in /v1"),
    ):
        with_client(server.url, responses, lambda client: client.check("m"))


def test_check_unreachable_endpoint_fails_without_waiting(responses):
    clock = FastClock()
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(EndpointError, match=f"{url} cannot be reached"):
        with_client(url, responses, lambda client: client.check("m"), clock=clock)
    assert clock.waits == []


def test_check_wrong_key_names_the_variable_it_came_from(responses, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        FakeChatServer(lambda body: "reply", api_key="the right one") as server,
        pytest.raises(EndpointError, match="refuses the key in OPENAI_API_KEY"),
    ):
        with_client(server.url, responses, lambda client: client.check("m"))


def test_check_server_on_this_machine_is_not_asked_through_a_proxy(responses, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with FakeChatServer(lambda body: "reply") as server:
        with_client(server.url, responses, lambda client: client.check("m"))
        assert ask(server.url, responses).text == "reply"


def test_check_path_without_v1_says_so(responses):
    with FakeChatServer(lambda body: "reply") as server, pytest.raises(EndpointError, match="usually ends in /v1"):
        with_client(server.url.removesuffix("/v1"), responses, lambda client: client.check("m"))


def test_key_role_variable_wins_over_the_common_one(responses, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "common")
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", KEY)
    with FakeChatServer(lambda body: "reply", api_key=KEY) as server:
        assert ask(server.url, responses).text == "reply"


def test_key_absent_sends_a_placeholder(responses):
    with FakeChatServer(lambda body: "reply") as server:
        ask(server.url, responses)
        assert server.headers[0]["authorization"] == "Bearer not-needed"


def test_key_with_characters_no_header_takes_is_refused_unseen(responses, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-schlüssel")
    with FakeChatServer(lambda body: "reply") as server, pytest.raises(EndpointError, match="OPENAI_API_KEY") as caught:
        ask(server.url, responses)
    assert "schl" not in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=401, body=error_body(f"Incorrect API key provided: {KEY}")),
        Fault(status=400, body=error_body(f"Bearer {KEY} is odd")),
        Fault(status=500, body=error_body(f"crashed with {KEY}")),
        Fault(drop_connection=True),
    ],
    ids=["401", "400", "500", "dropped"],
)
def test_key_echoed_by_the_server_and_the_prompt_appear_in_no_message_and_no_log(responses, monkeypatch, caplog, fault):
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with FakeChatServer(lambda body: fault) as server, pytest.raises((CallFailedError, EndpointError)) as caught:
        ask(server.url, responses, max_retries=1)
    shown = "".join([str(caught.value), repr(caught.value), caught.exconly(), caplog.text])
    chain = caught.value
    while chain is not None:
        shown += str(chain) + repr(chain.args)
        chain = chain.__cause__ or chain.__context__
    assert KEY not in shown
    assert "private document" not in shown
    assert KEY not in repr(Endpoint(server.url, "generator"))


@pytest.mark.parametrize("url", ["http://user:hunter2@host/v1", "http://host/v1?api_key=hunter2"])
def test_endpoint_url_with_a_secret_is_refused_unseen(url):
    with pytest.raises(InputError) as caught:
        Endpoint(url, "judge")
    assert "hunter2" not in str(caught.value)


def test_call_failed_error_pickled_is_the_same():
    error = pickle.loads(pickle.dumps(CallFailedError("timed out", "no reply", True)))
    assert (error.reason, error.detail, str(error)) == (
        "timed out",
        "no reply",
        "a model call was given up (timed out): no reply",
    )
