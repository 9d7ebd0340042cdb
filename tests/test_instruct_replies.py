"""Reading the generator's replies."""

from __future__ import annotations

import pytest

from longalign_core.chat_client.calls import ChatReply
from longalign_core.instruct.replies import fault_of_reply


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
        ("I'm sorry, but I can't help with that.", "stop", "refusal"),
        ("I’m sorry, but that is not possible.", "stop", "refusal"),
        ("  I cannot answer this.", "stop", "refusal"),
        ("As an AI language model, I have no view.", "stop", "refusal"),
        ("I apologize, the document is too long.", "stop", "refusal"),
        ("抱歉，我无法回答这个问题。", "stop", "refusal"),
        ("对不起，不能提供帮助。", "stop", "refusal"),
        ("作为一个AI语言模型，我没有意见。", "stop", "refusal"),
        ("作为一名读者，我认为如下。", "stop", None),
    ],
)
def test_fault_of_reply_names_what_makes_a_reply_useless(text, finish_reason, fault):
    reply = ChatReply(
        text=text, finish_reason=finish_reason, model="m", prompt_tokens=None, reply_tokens=None, stored=False
    )
    assert fault_of_reply(reply) == fault
