"""Several turns about one document: what the first question is like. The next ones follow from the answers."""

from __future__ import annotations

from longalign_core.config.task_types import FollowUpsTask
from longalign_core.instruct.task_forms.form import TaskForm

_REQUEST_EN = (
    "Each is the first question of a longer conversation about the text, such as a reader asks who wants to understand "
    "one subject of it thoroughly: it opens that subject and leaves room for further questions."
)
_REQUEST_ZH = (
    "每个问题都是一次较长对话的开场问题，提问者是想要透彻了解文本中某个主题的读者："
    "问题引出这个主题，并为后续追问留有余地。"
)


def form_of(task_type: FollowUpsTask, language: str) -> TaskForm:
    """The opening question, and how many turns there are."""
    return TaskForm(
        request=_REQUEST_ZH if language == "zh" else _REQUEST_EN,
        min_turns=task_type.min_turns,
        max_turns=task_type.max_turns,
    )
