"""Task types in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from longalign_core.config.instruct import InstructConfig
from longalign_core.config.loading import load_recipe
from longalign_core.config.models import ChatModel
from longalign_core.errors import InputError

WRITER = ChatModel(model="writer", max_tokens=1000)


def test_tasks_names_and_sections_are_expanded_in_order():
    config = InstructConfig(
        generator=WRITER,
        task_types=("summary", {"kind": "follow_ups", "name": "chat", "min_turns": 4, "max_turns": 8, "share": 2}),
    )
    assert [(one.name, one.share, one.num_documents, one.calls_per_conversation) for one in config.tasks] == [
        ("summary", 1, 1, 2),
        ("chat", 2, 1, 12),
    ]
    assert config.task_types[0] == "summary"


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (("sumary",), "no built-in task type 'sumary'; built in are general, summary, reasoning, extraction"),
        (({"kind": "poem", "name": "p"},), "kind: questions, follow_ups, code, several_documents, long_output"),
        (("general", {"kind": "questions", "name": "general", "request_en": "Ask."}), "names one twice"),
        (({"kind": "follow_ups", "name": "f", "min_turns": 6},), "min_turns 6 is above max_turns 5"),
        (({"kind": "code", "name": "c"},), "corpora"),
        (({"kind": "long_output", "name": "l", "min_words": 2000},), "raise max_tokens or lower min_words"),
    ],
)
def test_task_types_mistake_is_said(entries, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        InstructConfig(generator=WRITER, task_types=entries)


RECIPE = Path(__file__).parents[1] / "deployments/recipes/open_corpora.yaml"


@pytest.mark.parametrize(
    ("corpora", "sentence"),
    [
        ("[nowhere]", "task type c is for nowhere, which is no corpus of this recipe"),
        ("[wikipedia]", "task type c is about code, but wikipedia has the format"),
    ],
)
def test_code_task_of_a_corpus_without_code_is_one_sentence(corpora, sentence):
    with pytest.raises(InputError, match=sentence):
        load_recipe(RECIPE, [f"instruct.task_types=[{{kind: code, name: c, corpora: {corpora}}}]"])
