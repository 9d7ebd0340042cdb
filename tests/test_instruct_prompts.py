"""Prompts of the two calls."""

from __future__ import annotations

import re

import pytest

from longalign_core.instruct.prompts import answer_prompt, questions_prompt

TYPES = ("general", "summary", "reasoning", "extraction")
TEXT = "  A text {with braces}, \r\n odd\u3000spaces and %s.\n"


@pytest.mark.parametrize("language", ["en", "zh", "de"])
@pytest.mark.parametrize("task_type", TYPES)
def test_prompts_both_calls_begin_with_the_same_bytes_of_the_document(language, task_type):
    first = questions_prompt(TEXT, language, task_type, 5)
    second = answer_prompt(TEXT, "Why?")
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
