"""The records that travel between stages: one word per idea, one class per word."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text of a corpus.

    Attributes:
        id: Unique across corpora and stable across runs: corpus name, then what names it there.
        text: The cleaned text.
        source: Name of the corpus in the recipe.
        language: ISO 639-1 code, such as "en" or "zh".
        origin: File and position it was read from, for people.
        sha256: Of the UTF-8 text, 64 hex digits.
        licence: SPDX identifier or the corpus's own words; None when not stated.
        created: ISO 8601 date or time; None when not stated.
        num_tokens: By the recipe's length tokenizer; None until `select` has counted.
    """

    id: str
    text: str
    source: str
    language: str
    origin: str
    sha256: str
    url: str | None = None
    title: str | None = None
    licence: str | None = None
    created: str | None = None
    num_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A record that was left out, and why. Rejects are kept beside what was kept.

    Attributes:
        id: The record's id, or its origin where it never got one.
        source: Corpus or instruction set it came from.
        stage: The stage that rejected it.
        reason: A short fixed phrase; reports count by it.
        detail: What was found, for people.
    """

    id: str
    source: str
    stage: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLicence:
    """Under what terms the texts of one source stand.

    Attributes:
        source: Corpus or instruction set.
        licence: Of the source as a whole; None when not stated.
        redistributable: Whether its texts may be passed on; None when not stated.
        records: Records of a product that come from it.
        by_licence: Those records by their own licence, where the product says it.
    """

    source: str
    licence: str | None = None
    redistributable: bool | None = None
    records: int = 0
    by_licence: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Messages to train on, with where they came from.

    Attributes:
        id: Unique in its instruction set.
        messages: Turns in order; the last is the assistant's.
        source: Corpus of the document, or the instruction set's name.
        task_type: Name of the task type it was written for, as in the recipe; "chat" for external sets.
        document_id: The document it is about; None for short instructions.
        more_documents: Further documents it is about.
        model: The model that wrote it; None when not known.
        usage: What the calls that made it came to, in tokens as the endpoint counted them: calls,
            prompt_tokens, cached_tokens, reply_tokens; turns_left_out where a conversation ended early.
            Empty when not known, and without the sums that the endpoint did not tell of.
        evidence: Where in the document the passages lie that the answers rest on, as fractions of its
            length from 0 to 1. Empty when not looked for.
    """

    id: str
    messages: tuple[Message, ...]
    source: str
    task_type: str
    language: str
    document_id: str | None = None
    model: str | None = None
    licence: str | None = None
    more_documents: tuple[str, ...] = ()
    usage: dict[str, int] = field(default_factory=dict)
    evidence: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model under test replied to one question of a suite.

    Attributes:
        question_id: Unique in the suite.
        reply: The model's words; None when it gave none, with the reason in `error`.
        num_prompt_tokens: As the endpoint counted them; None when it did not say.
        num_cut_tokens: Tokens taken out of the prompt's middle to fit the window.
        attributes: What the suite's pictures need (needle depth, length, language).
    """

    question_id: str
    reply: str | None
    error: str | None = None
    num_prompt_tokens: int | None = None
    num_reply_tokens: int | None = None
    num_cut_tokens: int = 0
    attributes: dict[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One judgement of one answer. An unparsed reply is unscored with a reason, never a number.

    Attributes:
        repeat: Which of the repeated judgements, from 0.
        score: In the suite's own range; None when unscored.
        judge: "exact match", or the judging model's name.
        reply: The judge's words; None for metrics computed here.
        unscored: Why there is no score; None when there is one.
    """

    question_id: str
    repeat: int
    score: float | None
    judge: str
    reply: str | None = None
    unscored: str | None = None


def text_sha256(text: str) -> str:
    """Sha256 of the UTF-8 text, 64 hex digits. Lone surrogates are hashed as they are."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
