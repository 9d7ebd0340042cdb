"""OpenAI's Responses: what is asked, and what replies that ended in each way mean."""

from __future__ import annotations

import json

import pytest

from longalign_core.chat_client import CallFailedError, Endpoint
from longalign_core.chat_client.openai_responses import body_of, reply_of
from longalign_core.chat_client.wire import MalformedReplyError
from longalign_core.errors import EndpointError
from tests.chat_setup import in_turn, request_of
from tests.fake_chat_server import FakeChatServer, Fault
from tests.fake_replies import response
from tests.wire_setup import document_request, over_client, reply_over

ENDPOINT = Endpoint(None, "generator", "openai-responses")


def test_request_whole_as_the_sdk_sends_it():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    request = document_request(
        " Why?", document="Doc.", reply_schema=json.dumps(schema), temperature=0.3, top_p=0.9, seed=3
    )
    with FakeChatServer(lambda body: "reply") as server:
        reply_over(server.url, "openai-responses", request)
        (body,) = server.requests
    assert len(body.pop("prompt_cache_key")) == 32
    assert body == {
        "model": "m",
        "input": [{"role": "user", "content": "Doc. Why?"}],
        "max_output_tokens": 16,
        "store": False,
        "temperature": 0.3,
        "top_p": 0.9,
        "text": {"format": {"type": "json_schema", "name": "reply", "strict": True, "schema": schema}},
    }


def test_request_cache_key_is_the_documents_and_absent_without_one():
    keys = [
        body_of(request, ENDPOINT).get("prompt_cache_key")
        for request in (
            document_request(" One?", document="Doc."),
            document_request(" Two?", document="Doc."),
            document_request(" One?", document="Other."),
            document_request("No document.", document=""),
        )
    ]
    assert keys[0] == keys[1] != keys[2]
    assert keys[3] is None


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_request_with_default_sampling_says_nothing_of_it(temperature):
    body = body_of(request_of("hello", temperature=temperature), ENDPOINT)
    assert set(body) == {"model", "input", "max_output_tokens", "store"}


@pytest.mark.parametrize(
    ("incomplete", "finish_reason"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("odd", "odd"), (None, "incomplete")],
)
def test_reply_incomplete_tells_why_in_common_words(incomplete, finish_reason):
    body = response("half a", status="incomplete", incomplete=incomplete)
    with FakeChatServer(lambda _: Fault(status=200, body=body)) as server:
        reply = reply_over(server.url, "openai-responses", request_of("hello"))
    assert (reply.text, reply.finish_reason) == ("half a", finish_reason)


def test_reply_refusal_is_filtered():
    reply = reply_of(json.loads(response(None, refusal="I will not.")), "m")
    assert (reply.text, reply.finish_reason) == ("", "content_filter")


def test_reply_reasoning_is_left_out_and_usage_told():
    usage = {
        "input_tokens": 2105,
        "input_tokens_details": {"cached_tokens": 2000, "cache_write_tokens": 100},
        "output_tokens": 7,
    }
    reply = reply_of(json.loads(response("words", usage=usage)), "m")
    assert (reply.text, reply.prompt_tokens, reply.reply_tokens) == ("words", 2105, 7)
    assert (reply.cached_tokens, reply.cache_write_tokens) == (2000, 100)


@pytest.mark.parametrize(
    ("code", "reason", "passing"),
    [
        ("server_error", "server error", True),
        ("rate_limit_exceeded", "rate limited", True),
        ("bio_policy", "content filter", False),
        ("data_residency_mismatch", "request refused", False),
        (None, "server error", True),
    ],
)
def test_ask_response_that_failed_with_status_200_is_a_failure_and_never_kept(responses, code, reason, passing):
    error = {"code": code, "message": "made to fail"} if code else None
    body = response(None, status="failed", error=error)

    async def work(client):
        with pytest.raises(CallFailedError) as caught:
            await client.ask(request_of("hello"))
        return caught.value

    with FakeChatServer(lambda _: Fault(status=200, body=body)) as server:
        failure = over_client(server.url, "openai-responses", responses, work)
    assert (failure.reason, failure.passing, len(responses)) == (reason, passing, 0)


def test_ask_response_that_failed_for_a_passing_reason_is_tried_again(responses):
    failed = response(None, status="failed", error={"code": "server_error", "message": "made to fail"})
    with FakeChatServer(in_turn(Fault(status=200, body=failed), "at last")) as server:
        reply = over_client(
            server.url, "openai-responses", responses, lambda client: client.ask(request_of("hello")), max_retries=1
        )
    assert reply.text == "at last"


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_reply_that_did_not_end_is_malformed(status):
    with pytest.raises(MalformedReplyError):
        reply_of(json.loads(response("half a", status=status)), "m")


def test_ask_setting_that_the_model_does_not_take_ends_all_calls_and_names_it(responses):
    words = "Unsupported parameter: 'temperature' is not supported with this model."
    error = {"message": words, "type": "invalid_request_error", "param": "temperature", "code": "unsupported_parameter"}
    with (
        FakeChatServer(lambda _: Fault(status=400, body=json.dumps({"error": error}))) as server,
        pytest.raises(EndpointError, match=r"refuses a setting for model 'm' .*'temperature' is not supported"),
    ):
        over_client(server.url, "openai-responses", responses, lambda client: client.ask(request_of("hello")))
