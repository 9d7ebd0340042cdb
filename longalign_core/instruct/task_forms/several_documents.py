"""Questions that need more than one of several documents."""

from __future__ import annotations

from longalign_core.config.task_types import SeveralDocumentsTask
from longalign_core.instruct.task_forms.form import TaskForm

_REQUEST_EN = (
    "It consists of {number} documents under numbered headings. Each question can be answered only with what stands in "
    "two or more of them: it compares them, asks where they agree, differ or complete one another, follows a subject "
    "through them, or combines facts of several. Taken together the questions touch every document."
)
_REQUEST_ZH = (
    "文本由{number}篇带编号标题的文档组成。每个问题都必须结合其中两篇或更多文档才能回答：比较这些文档，询问它们在哪里一致、"
    "有分歧或互相补充，追踪贯穿各篇的主题，或者综合几篇中的事实。所有问题合起来要涉及每一篇文档。"
)


def form_of(task_type: SeveralDocumentsTask, language: str) -> TaskForm:
    """Questions across as many documents as the recipe names."""
    return TaskForm(request=(_REQUEST_ZH if language == "zh" else _REQUEST_EN).format(number=task_type.num_documents))
