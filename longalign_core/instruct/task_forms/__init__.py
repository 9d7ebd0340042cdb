"""How each kind of task is asked for: one small module a kind, with its words in both languages."""

from __future__ import annotations

from typing import assert_never

from longalign_core.config.task_types import (
    CodeTask,
    FollowUpsTask,
    LongOutputTask,
    QuestionsTask,
    SeveralDocumentsTask,
    TaskType,
)
from longalign_core.instruct.task_forms import code, follow_ups, long_output, several_documents
from longalign_core.instruct.task_forms.form import TaskForm

__all__ = ["TaskForm", "form_of"]


def form_of(task_type: TaskType, language: str) -> TaskForm:
    """What a task type asks about documents of a language. A new kind gets its module and its line here."""
    match task_type:
        case QuestionsTask():
            return TaskForm(request=(language == "zh" and task_type.request_zh) or task_type.request_en)
        case FollowUpsTask():
            return follow_ups.form_of(task_type, language)
        case CodeTask():
            return code.form_of(task_type, language)
        case SeveralDocumentsTask():
            return several_documents.form_of(task_type, language)
        case LongOutputTask():
            return long_output.form_of(task_type, language)
        case _:
            assert_never(task_type)
