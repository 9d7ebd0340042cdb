"""Recipe section of the instruction data: how it is written."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from longalign_core.config.base import Section, added
from longalign_core.config.built_in_tasks import BUILT_IN_TASKS
from longalign_core.config.models import ChatModel
from longalign_core.config.quality import GroundingConfig, QualityConfig
from longalign_core.config.task_types import TaskType, TaskTypeEntry


class InstructConfig(Section):
    """Self-instruct: two model calls a document (five questions, then one answer), more for several turns."""

    generator: ChatModel = Field(description="The model that writes questions and answers.")
    task_types: tuple[TaskTypeEntry, ...] = Field(
        default=tuple(BUILT_IN_TASKS),
        min_length=1,
        description="One is drawn a document; counts over the set keep to their shares. A name ("
        + ", ".join(BUILT_IN_TASKS)
        + ") or a task type written out as a section of its own.",
    )
    questions_per_document: int = Field(default=5, ge=1, le=20, description="Questions asked for; one is drawn.")
    seed: int = Field(default=0, description="Seed of task types, of the question drawn and of numbers of turns.")
    num_conversations: int | None = added(
        None,
        ge=1,
        description="Go on until exactly so many conversations are accepted or the documents run out; null: one for "
        "every document.",
    )
    structured_questions: bool = added(
        False,
        description="Ask for the questions as JSON by a schema, where the endpoint can hold a model to one; a reply "
        "that is not JSON is read as a numbered list.",
    )
    answer_instructions_en: str = added(
        "",
        description="Added after the question when the answer is asked for, not kept in the conversation; editing it "
        "asks for new answers to the same questions.",
    )
    answer_instructions_zh: str = added("", description="The same for Chinese documents, in Chinese.")
    quality: QualityConfig = added(QualityConfig(), description="Which answers are rejected.")
    grounding: GroundingConfig | None = added(
        None, description="Have a judge check answers against passages of the document; null does not."
    )

    @property
    def tasks(self) -> tuple[TaskType, ...]:
        """The task types, built-in names written out."""
        return tuple(BUILT_IN_TASKS[one] if isinstance(one, str) else one for one in self.task_types)

    @field_validator("task_types")
    @classmethod
    def _task_types_are_known_and_unique(cls, entries: tuple[TaskTypeEntry, ...]) -> tuple[TaskTypeEntry, ...]:
        for one in entries:
            if isinstance(one, str) and one not in BUILT_IN_TASKS:
                raise ValueError(
                    f"there is no built-in task type {one!r}; built in are {', '.join(BUILT_IN_TASKS)}, others are "
                    "written out as a section with kind and name"
                )
        names = [one if isinstance(one, str) else one.name for one in entries]
        if len(names) != len(set(names)):
            raise ValueError(f"task_types names one twice: {names}; name each once")
        return entries

    @model_validator(mode="after")
    def _long_outputs_fit(self) -> InstructConfig:
        for task in self.tasks:
            # No tokenizer in use puts several words into one token.
            if task.kind == "long_output" and task.min_words > self.generator.max_tokens:
                raise ValueError(
                    f"task type {task.name} wants answers of {task.min_words} words, but generator.max_tokens ends "
                    f"them at {self.generator.max_tokens} tokens; raise max_tokens or lower min_words"
                )
        return self
