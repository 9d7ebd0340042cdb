"""Recipe sections of the instruction data: how it is written and what it is mixed with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longalign_core.config.base import Section, Source, added
from longalign_core.config.models import ChatModel
from longalign_core.config.quality import GroundingConfig, QualityConfig

TaskType = Literal["general", "summary", "reasoning", "extraction"]


class InstructConfig(Section):
    """Self-instruct: two model calls a document (five questions, then one answer)."""

    generator: ChatModel = Field(description="The model that writes questions and answers.")
    task_types: tuple[TaskType, ...] = Field(
        default=("general", "summary", "reasoning", "extraction"),
        min_length=1,
        description="One is drawn a document; counts over the set are even.",
    )
    questions_per_document: int = Field(default=5, ge=1, le=20, description="Questions asked for; one is drawn.")
    seed: int = Field(default=0, description="Seed of task types and of the question drawn.")
    quality: QualityConfig = added(QualityConfig(), description="Checks of each answer by rules.")
    grounding: GroundingConfig | None = added(None, description="Check of each answer by a judge; null asks none.")

    @model_validator(mode="after")
    def _task_types_are_unique(self) -> InstructConfig:
        if len(self.task_types) != len(set(self.task_types)):
            raise ValueError(f"task_types names one twice: {list(self.task_types)}; name each once")
        return self


class InstructionSet(Section):
    """A local set of short or external instructions."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the set, unique in the mixture.")
    location: Source = Field(description="JSON lines file with `messages`, or ShareGPT's `conversations`, a line.")
    language: str = Field(default="en", pattern=r"^[a-z]{2}$", description="ISO 639-1 code of its texts.")
    licence: str | None = Field(default=None, description="SPDX identifier; null when not known.")
    max_conversations: int | None = Field(default=None, ge=0, description="Cap, drawn by seed; null takes all.")


class MixtureConfig(Section):
    """The training set: long conversations and instruction sets, shuffled."""

    suite: Literal["0k", "5k", "10k", "longalpaca-12k", "all"] = Field(
        default="10k",
        description="How many long conversations: none, 5,000, 10,000; LongAlpaca-12k replaces them by that set, "
        "named in `sets`; all takes every one.",
    )
    sets: tuple[InstructionSet, ...] = Field(default=(), description="Instruction sets mixed in.")
    seed: int = Field(default=0, description="Seed of caps and order.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> MixtureConfig:
        names = [one.name for one in self.sets]
        if len(names) != len(set(names)):
            raise ValueError(f"instruction sets share a name: {names}; give each its own")
        if self.suite == "longalpaca-12k" and "longalpaca" not in names:
            raise ValueError("suite longalpaca-12k needs an instruction set named longalpaca; add it to mixture.sets")
        return self
