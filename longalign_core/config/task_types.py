"""Kinds of tasks that a recipe can write out under `instruct.task_types`, beside the built-in names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from longalign_core.config.base import Section

TaskName = str
"""What a conversation's `task_type` says: the name of the task type that it was written for."""


class _TaskType(Section):
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the task type, unique; conversations carry it."
    )
    share: float = Field(
        default=1.0,
        gt=0,
        description="Weight against the other task types: one of 2 gets twice the conversations of one of 1.",
    )
    corpora: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Names of the corpora it is written for; null: all."
    )


class _OneDocument(_TaskType):
    @property
    def num_documents(self) -> int:
        """Documents that one conversation is about."""
        return 1

    @property
    def calls_per_conversation(self) -> int:
        """Model calls that one conversation takes, for planning."""
        return 2


class QuestionsTask(_OneDocument):
    """One question about one document and its answer, in the user's own words for what is asked."""

    kind: Literal["questions"] = "questions"
    request_en: str = Field(
        min_length=1,
        description="What kind of questions the model is to write about a document, in English: a sentence or two "
        "that follow 'Write 5 different questions about the text above.'",
    )
    request_zh: str = Field(
        default="", description="The same in Chinese, for Chinese documents; empty uses the English words for them too."
    )


class FollowUpsTask(_OneDocument):
    """A conversation of several turns about one document: each next question builds on what was said."""

    kind: Literal["follow_ups"] = "follow_ups"
    min_turns: int = Field(default=3, ge=3, le=8, description="Fewest questions of a conversation.")
    max_turns: int = Field(
        default=5, ge=3, le=8, description="Most questions; the number is drawn by seed for each document."
    )

    @property
    def calls_per_conversation(self) -> int:
        """Model calls that one conversation takes, for planning: two a turn, over the mean number of turns."""
        return self.min_turns + self.max_turns

    @model_validator(mode="after")
    def _turns_are_a_range(self) -> FollowUpsTask:
        if self.min_turns > self.max_turns:
            raise ValueError(f"min_turns {self.min_turns} is above max_turns {self.max_turns}; lower the first")
        return self


class CodeTask(_OneDocument):
    """One developer's task about a code repository and its solution."""

    kind: Literal["code"] = "code"
    corpora: tuple[str, ...] = Field(  # required: most corpora hold no code
        min_length=1, description="Names of the corpora it is written for; their format has to be repository."
    )
    activities: tuple[Literal["explain", "trace", "locate", "tests", "documentation"], ...] = Field(
        default=("explain", "trace", "locate", "tests", "documentation"),
        min_length=1,
        description="What is asked for: explain how parts work together, trace a call across files, locate where "
        "something has to be changed, write tests, write documentation.",
    )


class SeveralDocumentsTask(_TaskType):
    """One question that needs more than one of several documents, and its answer."""

    kind: Literal["several_documents"] = "several_documents"
    num_documents: int = Field(default=3, ge=2, le=8, description="Documents that one conversation is about.")

    @property
    def calls_per_conversation(self) -> int:
        """Model calls that one conversation takes, for planning."""
        return 2


class LongOutputTask(_OneDocument):
    """A request for a long, structured text about one document, and that text."""

    kind: Literal["long_output"] = "long_output"
    min_words: int = Field(
        default=800,
        ge=100,
        description="Shortest answer that is kept, in words (Chinese: characters); every request names this number.",
    )
    forms: tuple[Literal["report", "chapter_outline", "study_guide", "timeline", "handbook"], ...] = Field(
        default=("report", "chapter_outline", "study_guide", "timeline", "handbook"),
        min_length=1,
        description="Kinds of text that are asked for: report, chapter_outline, study_guide, timeline, handbook.",
    )


TaskType = QuestionsTask | FollowUpsTask | CodeTask | SeveralDocumentsTask | LongOutputTask

_KINDS = ("questions", "follow_ups", "code", "several_documents", "long_output")


def _kind_of(value: Any) -> str | None:
    if isinstance(value, str):
        return "name"
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


TaskTypeEntry = Annotated[
    Annotated[str, Tag("name")]
    | Annotated[QuestionsTask, Tag("questions")]
    | Annotated[FollowUpsTask, Tag("follow_ups")]
    | Annotated[CodeTask, Tag("code")]
    | Annotated[SeveralDocumentsTask, Tag("several_documents")]
    | Annotated[LongOutputTask, Tag("long_output")],
    # A discriminator of our own, since an entry may be a plain name; and so its words are our own too.
    Discriminator(
        _kind_of,
        custom_error_type="task_kind",
        custom_error_message="an entry of task_types is the name of a built-in one, or a section with kind: "
        + ", ".join(_KINDS),
    ),
]
"""What a recipe writes in `task_types`: a built-in name, or a task type written out."""
