"""What the report of `instruct` counts, outcome by outcome.

Memory holds numbers, the questions, and what is shown.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from longalign_core.records import Conversation, Message, Reject
from longalign_core.word_hashes import text_length

Shown = TypeVar("Shown")
_HEAD_CHARACTERS = 700
_TAIL_CHARACTERS = 900
_ANSWER_CHARACTERS = 6_000


class Place(NamedTuple):
    """Where a document stands in the draw.

    Attributes:
        task_type: What was asked about it.
        bucket: Its range of lengths, in words: "8k–16k".
        num_tokens: Its length; None when not counted.
    """

    task_type: str
    bucket: str
    num_tokens: int | None


@dataclass(slots=True)
class Acceptance:
    """Outcomes of one group of documents.

    Attributes:
        accepted: How many gave a conversation.
        rejected: How many did not, by reason.
    """

    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All outcomes."""
        return self.accepted + self.rejected.total()

    @property
    def share(self) -> float:
        """Accepted ones among all, 0 to 1."""
        return self.accepted / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One message as the page shows it, with the middle left out where it is long.

    Attributes:
        num_hidden: Characters left out between head and tail.
    """

    role: str
    head: str
    tail: str
    num_hidden: int


@dataclass(frozen=True, slots=True)
class ShownConversation:
    """A conversation as it came out."""

    id: str
    place: Place
    source: str
    language: str
    turns: tuple[Turn, ...]
    evidence: tuple[float, ...]


@dataclass(slots=True)
class Tally:
    """Counts over all outcomes.

    Attributes:
        by_type: Acceptance by task type; `by_corpus` and `by_bucket` likewise.
        questions: All questions, by language.
        question_words: Length of each question, in words; two Chinese characters are one.
        answer_words: Of each answer, by task type.
        evidence: Positions, all conversations together.
        num_without_evidence: Conversations with no position.
    """

    by_type: dict[str, Acceptance] = field(default_factory=dict)
    by_corpus: dict[str, Acceptance] = field(default_factory=dict)
    by_bucket: dict[str, Acceptance] = field(default_factory=dict)
    questions: dict[str, list[str]] = field(default_factory=dict)
    question_words: list[float] = field(default_factory=list)
    answer_words: dict[str, list[float]] = field(default_factory=dict)
    evidence: list[float] = field(default_factory=list)
    num_without_evidence: int = 0

    def accept(self, conversation: Conversation, place: Place) -> None:
        """Count a conversation."""
        for group in self._groups(place, conversation.source):
            group.accepted += 1
        questions = self.questions.setdefault(conversation.language, [])
        answers = self.answer_words.setdefault(place.task_type, [])
        for number, message in enumerate(conversation.messages):
            if message.role == "user":
                # The document stands before the first question, a blank line between them.
                question = message.content.rpartition("\n\n")[2] if number == 0 else message.content
                questions.append(question)
                self.question_words.append(text_length(question) / 2)
            elif message.role == "assistant":
                answers.append(text_length(message.content) / 2)
        self.evidence.extend(conversation.evidence)
        self.num_without_evidence += not conversation.evidence

    def reject(self, reject: Reject, place: Place) -> None:
        """Count a reject."""
        for group in self._groups(place, reject.source):
            group.rejected[reject.reason] += 1

    def _groups(self, place: Place, corpus: str) -> Iterable[Acceptance]:
        yield self.by_type.setdefault(place.task_type, Acceptance())
        yield self.by_corpus.setdefault(corpus, Acceptance())
        yield self.by_bucket.setdefault(place.bucket, Acceptance())


class Draw(Generic[Shown]):
    """So many of a stream's records, drawn by seed and id whatever their order; the rest is not held.

    Args:
        number: Records drawn.
        seed: Another seed draws others.
    """

    def __init__(self, number: int, seed: int) -> None:
        self._number = number
        self._seed = seed
        self._held: list[tuple[int, str, Shown]] = []

    def offer(self, name: str, show: Callable[[], Shown]) -> None:
        """Let a record take part; `show` is called only if it is in."""
        rank = -int.from_bytes(hashlib.sha256(f"{self._seed}\0{name}".encode()).digest()[:8])
        if len(self._held) < self._number:
            heapq.heappush(self._held, (rank, name, show()))
        elif self._held and (rank, name) > self._held[0][:2]:
            heapq.heapreplace(self._held, (rank, name, show()))

    def drawn(self) -> tuple[Shown, ...]:
        """The records, in the order of the draw."""
        return tuple(shown for _, _, shown in sorted(self._held, key=lambda one: (-one[0], one[1])))


def shown_conversation(conversation: Conversation, place: Place) -> ShownConversation:
    """A conversation with its documents shortened in the middle."""
    return ShownConversation(
        conversation.id,
        place,
        conversation.source,
        conversation.language,
        tuple(
            _turn(message, _TAIL_CHARACTERS if message.role == "user" else _ANSWER_CHARACTERS)
            for message in conversation.messages
        ),
        conversation.evidence,
    )


def _turn(message: Message, tail_characters: int) -> Turn:
    text = message.content
    num_hidden = len(text) - _HEAD_CHARACTERS - tail_characters
    if num_hidden <= 0:
        return Turn(message.role, text, "", 0)
    return Turn(message.role, text[:_HEAD_CHARACTERS], text[-tail_characters:], num_hidden)
