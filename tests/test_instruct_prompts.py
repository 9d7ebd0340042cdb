"""Prompts of the two calls."""

from __future__ import annotations

import re

import pytest

from longalign_core.config.built_in_tasks import BUILT_IN_TASKS
from longalign_core.instruct.prompts import after_text, joined_text
from longalign_core.instruct.prompts import questions_prompt as prompt_of
from longalign_core.instruct.task_forms import form_of
from tests.instruct_setup import document_of

TYPES = ("general", "summary", "reasoning", "extraction")
TEXT = "  A text {with braces}, \r\n odd\u3000spaces and %s.\n"


def questions_prompt(text: str, language: str, name: str, number: int) -> str:
    return prompt_of(text, language, form_of(BUILT_IN_TASKS[name], language).request, number)


@pytest.mark.parametrize("language", ["en", "zh", "de"])
@pytest.mark.parametrize("task_type", TYPES)
def test_prompts_both_calls_begin_with_the_same_bytes_of_the_document(language, task_type):
    first = questions_prompt(TEXT, language, task_type, 5)
    second = after_text(TEXT, "Why?")
    assert first.startswith(TEXT)
    assert second.startswith(TEXT)
    assert first[: len(TEXT) + 2] == second[: len(TEXT) + 2]
    assert second.endswith("Why?")


@pytest.mark.parametrize("task_type", TYPES)
def test_questions_prompt_language_of_the_document_is_the_language_of_the_request(task_type):
    def words(language):
        return questions_prompt("", language, task_type, 5)

    assert not re.search("[\u4e00-\u9fff]", words("en"))
    assert not re.search("[a-z]", words("zh"))
    assert words("de") == words("en")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_questions_prompt_asks_for_the_number_wanted_and_shows_the_form(language):
    prompt = questions_prompt("", language, "general", 7)
    assert "7" in prompt
    assert "1: " in prompt


@pytest.mark.parametrize("language", ["en", "zh"])
def test_questions_prompt_four_types_are_four_requests(language):
    assert len({questions_prompt("", language, task_type, 5) for task_type in TYPES}) == 4


def test_joined_text_several_documents_stand_whole_under_numbered_headings():
    documents = [document_of("a", TEXT), document_of("b", "second")]
    assert joined_text(documents[:1]) == TEXT
    assert joined_text(documents) == (
        f"==================== Document 1 ====================\n\n{TEXT}\n\n"
        "==================== Document 2 ====================\n\nsecond"
    )
