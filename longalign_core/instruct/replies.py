"""Reading what the generator replied: whether it is of use, and the questions in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from longalign_core.chat_client.calls import ChatReply

TRUNCATED = "truncated reply"
EMPTY = "empty reply"
FILTERED = "content filter"
REFUSAL = "refusal"
NO_QUESTIONS = "no questions parsed"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a document gives no conversation.

    Attributes:
        reason: A short fixed phrase, to count by.
        detail: What was found, for people.
    """

    reason: str
    detail: str


_CUT_SHORT = frozenset({"length", "max_tokens"})
_REFUSALS = re.compile(
    r"(i['’]m sorry|i am sorry|sorry,|my apologies|i apologi[sz]e|unfortunately, i (cannot|can['’]t|am unable)"
    r"|i (cannot|can['’]t|am unable to|am not able to|must decline|won['’]t be able to)|i['’]m (unable|not able) to"
    r"|as an ai\b|as a (large )?language model"
    r"|抱歉|很抱歉|非常抱歉|对不起|我(无法|不能|没有办法)|作为(一个|一名|一款)?\s*(ai|人工智能|语言模型))",
    re.IGNORECASE,
)
_MARKER = re.compile(
    r"""^[\s>\#*_•-]*                                  # Markdown before the number
        (?:q(?:uestion)?\.?\s*|问题\s*|第\s*)?         # a word for it
        (?:[（(\[]\s*(?P<closed>\d{1,2})\s*[)）\]]     # (1)
           [:：.．、]?
          |(?P<open>\d{1,2})[\s*_]*                    # 1
           (?:[：．、)）]|题[:：]?|[-–—](?=\s)|:(?!\d\d(?!\d))|\.(?!\d)))
        [\s*_]*(?P<text>.*)$""",
    re.IGNORECASE | re.VERBOSE,
)
_QUOTES = {'"': '"', "“": "”", "‘": "’", "'": "'", "「": "」", "『": "』", "«": "»", "`": "`"}
_SENTENCE_ENDS = tuple(".?!。？！…")


def fault_of_reply(reply: ChatReply) -> str | None:
    """Why a reply is of no use, as a fixed phrase; None when it is."""
    if reply.finish_reason in _CUT_SHORT:
        return TRUNCATED
    if reply.finish_reason == "content_filter":
        return FILTERED
    if not reply.text.strip():
        return EMPTY
    if _REFUSALS.match(reply.text.strip().lstrip("*_\"'“")):
        return REFUSAL
    return None


def parse_questions(reply: str, limit: int) -> tuple[str, ...]:
    """The questions of a numbered list, in order, without numbers, quotes and emphasis.

    Numbers may be written `1:`, `1.`, `1)`, `(1)`, `1：`, `1、`, `Q1:`, `问题1：`, bold or as headings.
    What stands before the first and after the last question is ignored. A question may go on in
    further lines until its sentence ends. Fewer questions than were asked for are taken as they
    are: one is drawn in the end.

    Args:
        reply: The model's words.
        limit: Questions asked for; further ones are left out.

    Returns:
        At most `limit` distinct questions; empty when there is no numbered line with a word in it.
    """
    questions: list[str] = []
    last_number, is_open = 0, False
    for line in reply.splitlines():
        match = _MARKER.match(line)
        number = int(match["closed"] or match["open"]) if match else 0
        if match and number > last_number:
            questions.append(match["text"].strip())
            last_number, is_open = number, True
        elif match or (questions and questions[-1] and not line.strip()):
            is_open = False
        elif is_open:
            questions[-1] = f"{questions[-1]} {line.strip()}".strip()
        if is_open and _bare(questions[-1]).endswith(_SENTENCE_ENDS):
            is_open = False
    bare = (_bare(question) for question in questions)
    return tuple(dict.fromkeys(text for text in bare if any(map(str.isalpha, text))))[:limit]


def _bare(text: str) -> str:
    """Without the emphasis and the quotation marks around it."""
    while True:
        stripped = text.strip().strip("*").strip()
        closing = _QUOTES.get(stripped[:1])
        if closing and stripped.endswith(closing) and not {stripped[0], closing} & set(stripped[1:-1]):
            stripped = stripped[1:-1]
        if stripped == text:
            return text
        text = stripped
