"""Whether what the generator replied is of use."""

from __future__ import annotations

import re
from dataclasses import dataclass

from longalign_core.chat_client.calls import ChatReply

TRUNCATED = "truncated reply"
EMPTY = "empty reply"
NO_TEXT = "reply is no text"
FILTERED = "content filter"
REFUSAL = "refusal"
NO_QUESTIONS = "no questions parsed"
REPEATED = "question repeated"
TOO_SHORT = "answer too short"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a document gives no conversation.

    Attributes:
        reason: A short fixed phrase, to count by.
        detail: What was found, for people.
    """

    reason: str
    detail: str


_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+(?:['’-]\w+)*"
)
# Half a pair, as a token that ends inside a character leaves it: no UTF-8, so no file or request can hold it.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CUT_SHORT = frozenset({"length", "max_tokens"})
_REFUSALS = re.compile(
    r"(i['’]m sorry|i am sorry|sorry,|my apologies|i apologi[sz]e|unfortunately, i (cannot|can['’]t|am unable)"
    r"|i (cannot|can['’]t|am unable to|am not able to|must decline|won['’]t be able to)|i['’]m (unable|not able) to"
    r"|as an ai\b|as a (large )?language model"
    r"|抱歉|很抱歉|非常抱歉|对不起|我(无法|不能|没有办法)|作为(一个|一名|一款)?\s*(ai|人工智能|语言模型))",
    re.IGNORECASE,
)


def fault_of_reply(reply: ChatReply) -> str | None:
    """Why a reply is no whole text, as a fixed phrase; None when it is one. What it says is judged elsewhere."""
    if reply.finish_reason in _CUT_SHORT:
        return TRUNCATED
    if reply.finish_reason == "content_filter":
        return FILTERED
    if not reply.text.strip():
        return EMPTY
    if _SURROGATE.search(reply.text):
        return NO_TEXT
    return None


def refuses_list(text: str) -> bool:
    """Whether a reply to a request for a list begins by saying that there will be none.

    Stricter than what holds for answers (`refusals.refusal_in`): a refusal's numbered reasons would be
    taken for questions, and of a list nothing is lost that could stand in a conversation.
    """
    return bool(_REFUSALS.match(text.strip().lstrip("*_\"'“")))


def num_words(text: str) -> int:
    """Length of a text in words; of Chinese, Japanese and Korean writing in characters."""
    return len(_WORD.findall(text))
