"""Recipe section of the instruction data: how it is written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longalign_core.config.base import Section
from longalign_core.config.models import ChatModel

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

    @model_validator(mode="after")
    def _task_types_are_unique(self) -> InstructConfig:
        if len(self.task_types) != len(set(self.task_types)):
            raise ValueError(f"task_types names one twice: {list(self.task_types)}; name each once")
        return self
