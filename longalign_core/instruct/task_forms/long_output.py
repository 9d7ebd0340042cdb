"""Requests for a long, structured text about a document."""

from __future__ import annotations

from longalign_core.config.task_types import LongOutputTask
from longalign_core.instruct.task_forms.form import TaskForm

_REQUEST_EN = (
    "Each task asks for one long text of at least {words} words with headings, says what it has to contain and for "
    "whom it is written, and names that length. Kinds of texts to choose from: {forms}."
)
_REQUEST_ZH = (
    "每个任务都要求写出一篇带有小标题、不少于{words}字的长文，说明必须包含的内容和读者对象，"
    "并写明这一字数。可选的文体：{forms}。"
)
_DEMAND_EN = "Write at least {words} words."
_DEMAND_ZH = "请写出不少于{words}字。"
_FORMS_EN = {
    "report": "a report on the text or on one large subject of it",
    "chapter_outline": "an outline chapter by chapter or part by part, with what each says",
    "study_guide": "a study guide with the main ideas, terms explained, and exercises with solutions",
    "timeline": "an annotated account of events or steps in their order",
    "handbook": "a handbook for somebody who has to apply what the text says",
}
_FORMS_ZH = {
    "report": "关于全文或其中一个大主题的报告",
    "chapter_outline": "逐章或逐部分的提纲，写明各部分的内容",
    "study_guide": "学习指南，包括主要观点、术语解释以及附有解答的练习",
    "timeline": "按先后顺序对事件或步骤的详细记述",
    "handbook": "供需要应用文本内容的人使用的手册",
}


def form_of(task_type: LongOutputTask, language: str) -> TaskForm:
    """Texts of the forms that the recipe names, at least as long as it says."""
    request, demand, forms, between = (
        (_REQUEST_ZH, _DEMAND_ZH, _FORMS_ZH, "；") if language == "zh" else (_REQUEST_EN, _DEMAND_EN, _FORMS_EN, "; ")
    )
    words = task_type.min_words
    return TaskForm(
        request=request.format(words=words, forms=between.join(forms[form] for form in task_type.forms)),
        is_task=True,
        min_words=words,
        demand=demand.format(words=words),
    )
