"""What a suite is: questions in the order to ask them, and how an answer gets its score.

A suite is one module with one class; its config names it by `kind`, and `open_suite` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from longalign_core.config.evaluation import LongBenchChatConfig, NeedleConfig
from longalign_core.evaluation.window import PromptWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question of a suite.

    Attributes:
        id: Unique in the suite.
        message: What the candidate is sent, document and all, before it is fitted to the window.
        query: The question without its document: what a judge and a reader see.
        reference: The right answer.
        attributes: What the suite's pictures need.
    """

    id: str
    message: str
    query: str
    reference: str
    attributes: dict[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Range of a suite's scores."""

    minimum: float
    maximum: float
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What a judge's reply amounts to: a score, or the reason why there is none. Exactly one is set."""

    score: float | None = None
    unscored: str | None = None


@runtime_checkable
class Metric(Protocol):
    """Scoring computed here."""

    @property
    def name(self) -> str:
        """Named as the judge of its verdicts."""

    def score(self, question: Question, reply: str) -> float:
        """The score of one reply, on the suite's scale."""


class Judging(Protocol):
    """Scoring by a judging model."""

    @property
    def repeats(self) -> int:
        """Times each answer is judged."""

    @property
    def template_sha256(self) -> str:
        """Digest of the judge's instructions."""

    def prompt(self, question: Question, reply: str, draw: int) -> str:
        """What the judge is sent. Another draw asks the same thing in another form."""

    def rating(self, reply: str) -> Rating:
        """What the judge's words amount to."""


class Suite(Protocol):
    """A set of questions and their scoring."""

    @property
    def scale(self) -> Scale:
        """Range of its scores."""

    @property
    def scoring(self) -> Metric | Judging:
        """How answers are scored."""

    def questions(self, window: PromptWindow) -> tuple[Question, ...]:
        """The questions, in the order in which a server that keeps prefixes does least work."""


def open_suite(config: LongBenchChatConfig | NeedleConfig) -> Suite:
    """The suite of a config whose sources are local paths.

    Raises:
        DataError: A file of the suite is not of the expected form.
    """
    from longalign_core.evaluation.longbench_chat import LongBenchChat
    from longalign_core.evaluation.needle import Needle

    return LongBenchChat(config) if isinstance(config, LongBenchChatConfig) else Needle(config)
