"""Reading the generator's replies."""

from __future__ import annotations

import pytest

from longalign_core.chat_client.calls import ChatReply
from longalign_core.instruct.replies import fault_of_reply, refuses_list


@pytest.mark.parametrize(
    ("text", "finish_reason", "fault"),
    [
        ("A good answer.", "stop", None),
        ("A good answer.", "", None),
        ("Sorrow is the theme of the book.", "stop", None),
        ("The author says: I cannot go on.", "stop", None),
        ("half an ans", "length", "truncated reply"),
        ("", "length", "truncated reply"),
        ("", "stop", "empty reply"),
        (" \n\t", "stop", "empty reply"),
        ("", "content_filter", "content filter"),
        ("cut off by a filter", "content_filter", "content filter"),
        ("I cannot answer this.", "stop", None),
    ],
)
def test_fault_of_reply_names_what_makes_a_reply_no_whole_text(text, finish_reason, fault):
    reply = ChatReply(
        text=text, finish_reason=finish_reason, model="m", prompt_tokens=None, reply_tokens=None, stored=False
    )
    assert fault_of_reply(reply) == fault


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but that is not possible.",
        "  I cannot answer this.",
        "As an AI language model, I have no view.",
        "I apologize, the document is too long.",
        "I cannot write questions about this text:\n1. It is too long.\n2. It is in two languages.",
        "抱歉，我无法回答这个问题。",
        "对不起，不能提供帮助。",
        "作为一个AI语言模型，我没有意见。",
    ],
)
def test_refuses_list_reply_that_begins_with_a_refusal_is_one(text):
    assert refuses_list(text)


@pytest.mark.parametrize(
    "text", ["1: Why?", "作为一名读者，我提出以下问题。\n1：为什么？", "Sorrow is the theme.\n1: Why?"]
)
def test_refuses_list_list_with_a_preamble_is_none(text):
    assert not refuses_list(text)
