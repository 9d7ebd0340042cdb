"""What holds over every interface alike: what is sent and to whom, with which key, and what a failure means."""

from __future__ import annotations

import json
import logging

import pytest

from longalign_core.chat_client import CallFailedError, Endpoint
from longalign_core.errors import EndpointError
from tests.chat_setup import free_port, in_turn, request_of
from tests.fake_chat_server import FakeChatServer, Fault, anthropic_error, error_body
from tests.fake_replies import turns_of
from tests.wire_setup import APIS, DOCUMENT, clear_keys, document_request, over_client, over_wire, reply_over

KEY = "sk-very-secret-0123456789"
every_api = pytest.mark.parametrize("api", APIS)


def error_of(api: str, message: str) -> str:
    return anthropic_error(message) if api == "anthropic" else error_body(message)


@every_api
@pytest.mark.parametrize("ending", ["", "/"], ids=["plain", "slash"])
def test_complete_request_gives_text_usage_and_model(api, ending):
    with FakeChatServer(lambda body: "four words of reply") as server:
        reply = reply_over(server.url + ending, api, request_of("two words"))
    assert (reply.text, reply.finish_reason, reply.model) == ("four words of reply", "stop", "m")
    assert (reply.prompt_tokens, reply.reply_tokens, reply.stored) == (2, 4, False)


@every_api
def test_complete_two_calls_about_one_document_begin_with_the_same_bytes(api):
    with FakeChatServer(lambda body: "reply") as server:
        for rest in ("\nAsk five questions.", "\nWhat is line two?"):
            reply_over(server.url, api, document_request(rest))
        first, second = server.contents
        bodies = server.requests
    document = json.dumps(DOCUMENT, ensure_ascii=False).encode()[1:-1]  # Without the closing quote.
    assert first.count(document) == second.count(document) == 1
    end = first.index(document) + len(document)
    assert first[:end] == second[:end]
    for body, rest in zip(bodies, ("\nAsk five questions.", "\nWhat is line two?"), strict=True):
        assert turns_of(body) == [("user", DOCUMENT + rest)]


@every_api
def test_ask_text_with_half_a_surrogate_pair_fails_alone_before_anything_is_sent(responses, api):
    broken = document_request("?", document="fine \udc80 text")

    async def work(client):
        with pytest.raises(CallFailedError, match=r"half a surrogate pair \(U\+DC80\) at character 5") as caught:
            await client.ask(broken)
        return caught.value, await client.ask(document_request("?"))

    with FakeChatServer(lambda body: "reply") as server:
        error, reply = over_client(server.url, api, responses, work)
        assert len(server.requests) == 1
    assert (error.reason, error.passing, reply.text) == ("prompt is no text", False, "reply")


@every_api
def test_key_changed_during_the_run_is_sent_from_then_on(api, monkeypatch):
    async def work(wire):
        monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", "first")
        await wire.complete(request_of("one"))
        monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", "second")
        await wire.complete(request_of("two"))
        await wire.model_named("m")

    with FakeChatServer(lambda body: "reply") as server:
        over_wire(server.url, api, work)
        sent = [headers["authorization"] for headers in server.headers + server.other_headers]
    assert sent == ["Bearer first", "Bearer second", "Bearer second"]


@every_api
def test_key_of_the_other_provider_and_what_sdks_read_by_themselves_are_never_sent(api, monkeypatch, tmp_path):
    clear_keys(monkeypatch)
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, f"value-of-{name}")
    for name in ("OPENAI", "ANTHROPIC"):
        lines = (
            f"Authorization: Bearer value-of-{name}-headers\nX-Api-Key: value-of-{name}-headers\nX-Odd: value-of-odd"
        )
        monkeypatch.setenv(f"{name}_CUSTOM_HEADERS", lines)
        monkeypatch.setenv(f"{name}_BASE_URL", f"http://127.0.0.1:{free_port()}/v1")
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    own = "ANTHROPIC_API_KEY" if api == "anthropic" else "OPENAI_API_KEY"

    async def work(wire):
        await wire.complete(request_of("one"))
        await wire.model_named("m")
        await wire.list_models()

    with FakeChatServer(lambda body: "reply") as server:
        over_wire(server.url, api, work)
        sent = server.headers + server.other_headers
    assert len(sent) == 3
    for headers in sent:
        assert headers["authorization"] == f"Bearer value-of-{own}"
        assert {value.removeprefix("Bearer ") for value in headers.values() if "value-of" in value} == {
            f"value-of-{own}"
        }


@every_api
def test_key_absent_sends_a_placeholder_and_no_token_of_the_environment(api, monkeypatch):
    clear_keys(monkeypatch)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "a-token")
    with FakeChatServer(lambda body: "reply") as server:
        reply_over(server.url, api, request_of("hello"))
        assert server.headers[0]["authorization"] == "Bearer not-needed"


def test_organisation_of_an_openai_account_goes_to_openai_alone(monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-ours")
    sent = {}
    for api in APIS:
        with FakeChatServer(lambda body: "reply") as server:
            reply_over(server.url, api, request_of("hello"))
            sent[api] = server.headers[0].get("openai-organization")
    assert sent == {"compatible": None, "openai": "org-ours", "openai-responses": "org-ours", "anthropic": None}


@every_api
def test_check_server_of_this_machine_is_not_asked_through_a_proxy(responses, api, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    async def work(client):
        await client.check("m")
        return await client.ask(request_of("hello"))

    with FakeChatServer(lambda body: "reply") as server:
        assert over_client(server.url, api, responses, work).text == "reply"


@every_api
def test_check_known_model_spends_nothing(responses, api):
    with FakeChatServer(lambda body: "reply", models=["org/m"], api_key="not-needed") as server:
        over_client(server.url, api, responses, lambda client: client.check("org/m"))
        assert server.requests == []


@every_api
def test_check_model_that_does_not_exist_is_said_before_anything_is_spent(responses, api):
    with FakeChatServer(lambda body: "reply", models=["other"]) as server:
        with pytest.raises(EndpointError, match="does not know model 'm'"):
            over_client(server.url, api, responses, lambda client: client.check("m"))
        assert server.requests == []


@every_api
def test_check_wrong_key_names_its_variable(responses, api, monkeypatch):
    clear_keys(monkeypatch)
    variable = "ANTHROPIC_API_KEY" if api == "anthropic" else "OPENAI_API_KEY"
    monkeypatch.setenv(variable, KEY)
    with (
        FakeChatServer(lambda body: "reply", api_key="the right one") as server,
        pytest.raises(EndpointError, match=f"refuses the key in {variable}"),
    ):
        over_client(server.url, api, responses, lambda client: client.check("m"))


@pytest.mark.parametrize("api", ["compatible", "openai", "openai-responses"])
def test_check_url_without_v1_says_that_it_lacks_it(responses, api):
    with (
        FakeChatServer(lambda body: "reply") as server,
        pytest.raises(EndpointError, match=r"usually ends in /v1, does not: add that"),
    ):
        over_client(server.url.removesuffix("/v1"), api, responses, lambda client: client.check("m"))


STATUSES = {
    400: "request refused",
    408: "server error",
    409: "server error",
    413: "prompt too long",
    422: "request refused",
    429: "rate limited",
    500: "server error",
    502: "server error",
    503: "server error",
    504: "server error",
    529: "overloaded",
}


@every_api
def test_ask_error_status_of_one_call_gives_up_that_call_for_a_reason(responses, api):
    async def work(client):
        errors = {}
        for status in STATUSES:
            with pytest.raises(CallFailedError) as caught:
                await client.ask(request_of(f"fails with {status}"))
            errors[status] = caught.value
        return errors, await client.ask(request_of("works"))

    faults = [Fault(status=status, body=error_of(api, "made to fail")) for status in STATUSES]
    with FakeChatServer(in_turn(*faults, "reply")) as server:
        errors, reply = over_client(server.url, api, responses, work)
    assert {status: error.reason for status, error in errors.items()} == STATUSES
    for status, error in errors.items():
        assert error.passing == (status in (408, 409, 429) or status >= 500)
        assert f"HTTP {status}" in error.detail and "made to fail" in error.detail
    assert (reply.text, len(responses)) == ("reply", 1)


@every_api
@pytest.mark.parametrize(
    ("status", "told"), [(401, "refuses"), (402, "quota is used up"), (403, "refuses"), (404, "does not know")]
)
def test_ask_error_status_of_the_account_ends_all_calls(responses, api, status, told):
    with (
        FakeChatServer(lambda body: Fault(status=status, body=error_of(api, "no"))) as server,
        pytest.raises(EndpointError, match=told),
    ):
        over_client(server.url, api, responses, lambda client: client.ask(request_of("hello")))


@every_api
def test_ask_status_200_without_a_reply_is_tried_again_and_never_kept(responses, api):
    bodies = ["", "{", "<html>busy</html>", "[]", "{}", '{"error": {"message": "odd", "code": 502}}']

    async def work(client):
        with pytest.raises(CallFailedError) as caught:
            await client.ask(request_of("hello"))
        return caught.value

    with FakeChatServer(in_turn(*(Fault(status=200, body=body) for body in bodies))) as server:
        error = over_client(server.url, api, responses, work, max_retries=len(bodies) - 1)
        assert len(server.requests) == len(bodies)
    assert (error.reason, error.passing, len(responses)) == ("malformed reply", True, 0)


@every_api
def test_key_does_not_follow_a_redirect_to_another_server(api, monkeypatch):
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", KEY)
    path = {"anthropic": "/messages", "openai-responses": "/responses"}.get(api, "/chat/completions")
    with FakeChatServer(lambda body: "elsewhere") as other:
        away = Fault(status=307, headers={"Location": other.url + path})
        with FakeChatServer(lambda body: away) as server:
            assert reply_over(server.url, api, request_of("hello")).text == "elsewhere"
            assert KEY in str(server.headers)
        assert len(other.headers) == 1
        assert KEY not in str(other.headers)


@every_api
@pytest.mark.parametrize("status", [400, 401, 500])
def test_key_and_prompt_echoed_by_the_server_appear_in_no_message_and_no_log(
    responses, api, status, monkeypatch, caplog
):
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", KEY)
    caplog.set_level(logging.DEBUG, logger="longalign_core")
    fault = Fault(status=status, body=error_of(api, f"Bearer {KEY} is odd"))
    with FakeChatServer(lambda body: fault) as server, pytest.raises((CallFailedError, EndpointError)) as caught:
        over_client(server.url, api, responses, lambda client: client.ask(request_of("private document")))
    shown = caught.exconly() + repr(caught.value) + caplog.text
    assert KEY not in shown
    assert "private document" not in shown


@every_api
@pytest.mark.parametrize(
    "fault",
    [
        Fault(drop_connection=True),
        Fault(status=200, body='{"content": [', cut_at=5),
        Fault(status=200, body="not gzip", headers={"Content-Encoding": "gzip"}),
        Fault(status=500, body="not gzip", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["dropped", "cut", "unreadable", "unreadable error"],
)
def test_ask_connection_that_breaks_is_passing(responses, api, fault):
    async def work(client):
        with pytest.raises(CallFailedError) as caught:
            await client.ask(request_of("hello"))
        return caught.value

    with FakeChatServer(lambda body: fault) as server:
        error = over_client(server.url, api, responses, work)
    assert (error.reason, error.passing, len(responses)) == ("connection failed", True, 0)


def test_endpoint_of_a_provider_is_named_for_people():
    assert Endpoint(None, "judge", "openai-responses").place == "of openai"
    assert Endpoint(None, "judge", "anthropic").key_variables == ("LONGALIGN_JUDGE_API_KEY", "ANTHROPIC_API_KEY")
