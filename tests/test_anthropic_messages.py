"""Anthropic's Messages: the document as a marked block of its own, sampling, and what replies and errors mean."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from longalign_core.chat_client import Endpoint
from longalign_core.chat_client.anthropic_messages import body_of, reply_of
from longalign_core.chat_client.wire import MalformedReplyError
from longalign_core.errors import EndpointError, InputError
from longalign_core.records import Message
from tests.chat_setup import request_of
from tests.fake_chat_server import FakeChatServer, Fault, anthropic_error
from tests.fake_replies import message
from tests.wire_setup import DOCUMENT, document_request, over_client, over_wire, reply_over

ENDPOINT = Endpoint(None, "generator", "anthropic")
MARK = {"type": "ephemeral"}


def blocks_of(rest: str, **changes: object) -> list[dict]:
    return body_of(document_request(rest, **changes), ENDPOINT)["messages"][0]["content"]


def test_request_document_is_one_marked_block_of_the_same_bytes_in_both_calls():
    with FakeChatServer(lambda body: "reply") as server:
        for rest in ("\nAsk five questions.", "\nWhat is line two?"):
            reply_over(server.url, "anthropic", document_request(rest))
        first, second = server.contents
        bodies = server.requests
    block = json.dumps(
        {"type": "text", "text": DOCUMENT, "cache_control": MARK}, ensure_ascii=False, separators=(",", ":")
    ).encode()
    assert block in first
    assert block in second
    assert first[: first.index(block)] == second[: second.index(block)]
    assert [[part["text"] for part in body["messages"][0]["content"]] for body in bodies] == [
        [DOCUMENT, "\nAsk five questions."],
        [DOCUMENT, "\nWhat is line two?"],
    ]


def test_request_whole_as_the_sdk_sends_it():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    request = document_request(" Why?", document="Doc.", reply_schema=json.dumps(schema), temperature=0.0, seed=3)
    with FakeChatServer(lambda body: "reply") as server:
        reply_over(server.url, "anthropic", request)
        (body,) = server.requests
        assert server.headers[0]["anthropic-version"]
    assert body == {
        "model": "m",
        "max_tokens": 16,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Doc.", "cache_control": MARK},
                    {"type": "text", "text": " Why?"},
                ],
            }
        ],
        "temperature": 0.0,
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }


def test_request_nothing_shared_is_one_block_without_a_mark():
    assert blocks_of("Just this.", document="") == [{"type": "text", "text": "Just this."}]


def test_request_all_shared_is_one_marked_block():
    assert blocks_of("", document="Doc.") == [{"type": "text", "text": "Doc.", "cache_control": MARK}]


@pytest.mark.parametrize(("document", "rest"), [("Doc.", " \n"), (" \n", "Why?"), ("\t", " ")])
def test_request_split_that_would_leave_only_white_space_in_a_block_is_not_made(document, rest):
    assert blocks_of(rest, document=document) == [{"type": "text", "text": document + rest}]


def test_request_system_text_goes_where_the_interface_has_it_and_later_turns_stay():
    turns = (("system", "Be brief."), ("user", "One?"), ("assistant", "Yes."), ("user", "Two?"))
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    body = body_of(replace(request_of(""), messages=messages), ENDPOINT)
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert [(turn["role"], turn["content"][0]["text"]) for turn in body["messages"]] == list(turns[1:])


def test_request_follow_up_keeps_the_document_marked_in_its_first_turn():
    request = document_request(" One?", document="Doc.")
    further = (Message(role="assistant", content="Yes."), Message(role="user", content="Two?"))
    body = body_of(replace(request, messages=request.messages + further), ENDPOINT)
    marks = [[block.get("cache_control") for block in turn["content"]] for turn in body["messages"]]
    assert marks == [[MARK, None], [None], [None]]


@pytest.mark.parametrize(
    ("temperature", "top_p", "sent"),
    [
        (None, 1.0, {}),
        (1.0, 1.0, {}),
        (0.3, 1.0, {"temperature": 0.3}),
        (1.0, 0.9, {"top_p": 0.9}),
        (None, 0.9, {"top_p": 0.9}),
    ],
)
def test_request_sampling_says_only_what_is_not_the_default(temperature, top_p, sent):
    body = body_of(request_of("hello", temperature=temperature, top_p=top_p), ENDPOINT)
    assert {name: body[name] for name in ("temperature", "top_p") if name in body} == sent


def test_request_temperature_and_top_p_together_say_what_to_change():
    with pytest.raises(InputError, match="take one of them at most; set top_p or temperature to 1"):
        body_of(request_of("hello", temperature=0.3, top_p=0.9), ENDPOINT)


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_reply_stop_reason_is_told_in_common_words(stop_reason, finish_reason):
    reply = reply_of(json.loads(message("half a", stop_reason=stop_reason)), "m")
    assert (reply.text, reply.finish_reason) == ("half a", finish_reason)


def test_reply_text_blocks_are_joined_and_thinking_is_left_out():
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "One, "},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "two."},
    ]
    with FakeChatServer(lambda body: Fault(status=200, body=message(None, blocks=blocks))) as server:
        assert reply_over(server.url, "anthropic", request_of("hello")).text == "One, two."


def test_reply_refusal_without_words_is_filtered():
    reply = reply_of(json.loads(message(None, blocks=[], stop_reason="refusal")), "m")
    assert (reply.text, reply.finish_reason) == ("", "content_filter")


def test_reply_usage_adds_what_was_read_from_and_written_to_the_cache():
    usage = {
        "input_tokens": 5,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 2000,
        "output_tokens": 7,
    }
    reply = reply_of(json.loads(message("hi", usage=usage)), "m")
    assert (reply.prompt_tokens, reply.reply_tokens) == (2105, 7)
    assert (reply.cached_tokens, reply.cache_write_tokens) == (2000, 100)


def test_reply_without_usage_leaves_the_counts_unknown():
    reply = reply_of(json.loads(message("hi", usage={})), "m")
    assert (reply.prompt_tokens, reply.reply_tokens, reply.cached_tokens) == (None, None, None)


@pytest.mark.parametrize("stop_reason", [None, 3])
def test_reply_that_did_not_end_is_malformed(stop_reason):
    with pytest.raises(MalformedReplyError):
        reply_of(json.loads(message("hi", stop_reason=stop_reason)), "m")


def test_models_beyond_the_first_page_are_listed():
    names = [f"model-{number}" for number in range(50)]
    with FakeChatServer(lambda body: "reply", models=names) as server:
        assert over_wire(server.url, "anthropic", lambda wire: wire.list_models()) == frozenset(names)


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_url_with_and_without_v1_means_the_same(ending):
    with FakeChatServer(lambda body: "reply") as server:
        url = server.url.removesuffix("/v1") + ending
        assert reply_over(url, "anthropic", request_of("hello")).text == "reply"


def test_ask_long_reply_is_asked_for_in_one_piece(responses):
    request = request_of("hello", max_tokens=120_000)
    with FakeChatServer(lambda body: "reply") as server:
        assert over_client(server.url, "anthropic", responses, lambda client: client.ask(request)).text == "reply"


def test_ask_temperature_that_the_model_does_not_take_ends_all_calls_and_names_it(responses):
    fault = Fault(status=400, body=anthropic_error("`temperature` is deprecated for this model."))
    with (
        FakeChatServer(lambda body: fault) as server,
        pytest.raises(EndpointError, match=r"refuses a setting for model 'm' .*`temperature`.*temperature: null"),
    ):
        request = request_of("hello", temperature=0.0)
        over_client(server.url, "anthropic", responses, lambda client: client.ask(request))
