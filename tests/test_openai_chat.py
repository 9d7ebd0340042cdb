"""Chat Completions: what only OpenAI is told, what compatible servers are, and what replies mean."""

from __future__ import annotations

import json

import pytest

from longalign_core.chat_client import Endpoint
from longalign_core.chat_client.openai_chat import body_of, reply_of
from longalign_core.chat_client.wire import MalformedReplyError
from tests.chat_setup import request_of
from tests.fake_chat_server import FakeChatServer, Fault, completion
from tests.wire_setup import document_request, reply_over

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def sent_over(api: str, **changes: object) -> dict:
    with FakeChatServer(lambda body: "reply") as server:
        reply_over(server.url, api, document_request(" Why?", document="Doc.", **changes))
        (body,) = server.requests
    return body


def test_request_to_openai_limits_the_completion_and_names_the_documents_cache():
    body = sent_over("openai")
    assert len(body.pop("prompt_cache_key")) == 32
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Doc. Why?"}],
        "max_completion_tokens": 16,
    }


def test_request_to_openai_says_sampling_that_is_not_the_default():
    body = sent_over("openai", temperature=0.3, top_p=0.9)
    assert (body["temperature"], body["top_p"]) == (0.3, 0.9)


def test_request_to_a_compatible_server_holds_only_what_all_of_them_know():
    assert sent_over("compatible", seed=3) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Doc. Why?"}],
        "max_tokens": 16,
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 3,
    }


@pytest.mark.parametrize("api", ["compatible", "openai"])
def test_request_structured_reply_sends_the_schema(api):
    assert sent_over(api, reply_schema=json.dumps(SCHEMA))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA},
    }


def test_request_cache_key_is_the_same_for_all_calls_about_a_document():
    endpoint = Endpoint(None, "generator", "openai")
    one, two, other = (
        body_of(document_request(rest, document=document), endpoint)["prompt_cache_key"]
        for document, rest in [("Doc.", " One?"), ("Doc.", " Two?"), ("Other.", " One?")]
    )
    assert one == two != other
    assert "prompt_cache_key" not in body_of(request_of("nothing shared"), endpoint)


@pytest.mark.parametrize("finish_reason", ["length", "content_filter"])
def test_reply_cut_short_says_so(finish_reason):
    body = completion("half a", finish_reason=finish_reason)
    with FakeChatServer(lambda _: Fault(status=200, body=body)) as server:
        reply = reply_over(server.url, "openai", request_of("hello"))
    assert (reply.text, reply.finish_reason) == ("half a", finish_reason)


def test_reply_refusal_is_filtered():
    body = json.loads(completion(None))
    body["choices"][0]["message"]["refusal"] = "I will not."
    reply = reply_of(body, "m")
    assert (reply.text, reply.finish_reason) == ("", "content_filter")


def test_reply_that_a_gateway_broke_off_is_malformed():
    with pytest.raises(MalformedReplyError):
        reply_of(json.loads(completion("half a", finish_reason="error")), "m")


def test_reply_usage_tells_of_the_cache():
    usage = {
        "prompt_tokens": 2105,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 2000, "cache_write_tokens": 100},
    }
    reply = reply_of(json.loads(completion("hi", usage=usage)), "m")
    assert (reply.prompt_tokens, reply.reply_tokens) == (2105, 7)
    assert (reply.cached_tokens, reply.cache_write_tokens) == (2000, 100)


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": "hi"}]}])
def test_reply_without_a_message_is_malformed(body):
    with pytest.raises(MalformedReplyError):
        reply_of(body, "m")
