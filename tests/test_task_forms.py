"""The words of each kind of task."""

from __future__ import annotations

import pytest

from longalign_core.config.task_types import CodeTask, LongOutputTask
from longalign_core.instruct.prompts import questions_prompt
from longalign_core.instruct.task_forms import form_of

LONG = LongOutputTask(name="long", min_words=800)


@pytest.mark.parametrize(
    ("drawn", "language", "asked"),
    [
        ("Write a report of at least 800 words.", "en", "Write a report of at least 800 words."),
        ("Write an 800-word report.", "en", "Write an 800-word report."),
        ("Write a report.", "en", "Write a report. Write at least 800 words."),
        ("Write of 800 BC.", "en", "Write of 800 BC. Write at least 800 words."),
        ("Write 1,800 words.", "en", "Write 1,800 words. Write at least 800 words."),
        ("写一篇不少于800字的报告。", "zh", "写一篇不少于800字的报告。"),
        ("写一篇报告。", "zh", "写一篇报告。请写出不少于800字。"),
        ("写一篇报告", "zh", "写一篇报告 请写出不少于800字。"),
    ],
)
def test_question_long_output_names_the_wanted_length_once(drawn, language, asked):
    assert form_of(LONG, language).question(drawn) == asked


def test_questions_prompt_tasks_are_done_and_questions_answered():
    code = CodeTask(name="code", corpora=("github",))
    english = questions_prompt("x", "en", form_of(code, "en").request, 5, is_task=True)
    chinese = questions_prompt("x", "zh", form_of(code, "zh").request, 5, is_task=True)
    assert "Do not do them." in english
    assert "answer" not in english
    assert "根据文本完成" in chinese
    assert "回答" not in chinese
    assert "Do not answer them." in questions_prompt("x", "en", "", 5)
    assert "不要回答这些问题。" in questions_prompt("x", "zh", "", 5)
