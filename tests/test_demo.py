"""What the demo lays out, read by the readers and suites of its own recipe. The model is not converted here."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

import pytest
import yaml

from deployments.demo import prepare
from longalign_core.config.corpus_formats import CorpusConfig
from longalign_core.config.evaluation import LongBenchChatConfig, NeedleConfig
from longalign_core.config.loading import load_recipe
from longalign_core.config.runtime import Runtime
from longalign_core.evaluation.suites import open_suite
from longalign_core.evaluation.window import PromptWindow
from longalign_core.records import Conversation, Document
from longalign_core.source_files import list_files
from longalign_core.stages.instruction_sets import SetReading, read_set
from tests.corpora_inputs import read_all
from tests.tiny_model import tiny_tokenizer

RECIPE = load_recipe(prepare.HERE.parent / "recipes" / "demo.yaml", [])
QUESTIONS = yaml.safe_load((prepare.HERE / "questions.yaml").read_text(encoding="utf-8"))
HELD_OUT = {question["topic"] for question in QUESTIONS} | set(prepare.HAYSTACK_TOPICS)


@pytest.fixture(scope="module")
def window(tmp_path_factory) -> PromptWindow:
    return PromptWindow.open(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")), 4_000)


def documents_in(folder: Path, corpus: str) -> list[Document]:
    """What the recipe's own corpus of this name reads from the folder."""
    (config,) = (one for one in RECIPE.corpora if one.name == corpus)
    assert isinstance(config, CorpusConfig)
    documents, rejects = read_all(list_files(folder).files, config)
    assert [one for one in rejects if one.reason == "other file type"] == []
    return documents


def test_topics_give_the_same_bytes_at_any_time(tmp_path):
    prepare.write_topics(tmp_path, {"for"})
    (file,) = tmp_path.iterdir()
    assert file.read_bytes()[4:8] == bytes(4), "the gzip header holds a time stamp"


def test_demo_topics_are_read_and_those_of_the_evaluation_are_held_out(tmp_path):
    prepare.write_topics(tmp_path, HELD_OUT)
    documents = documents_in(tmp_path, "python_reference")
    topics = {(document.url or "").removeprefix(prepare.REFERENCE + "#") for document in documents}
    assert topics == set(pydoc_data.topics.topics) - HELD_OUT
    assert set(pydoc_data.topics.topics) >= HELD_OUT
    # Not under another name either.
    corpus = {document.text for document in documents}
    assert corpus.isdisjoint(pydoc_data.topics.topics[name].strip() for name in HELD_OUT)


def test_demo_readmes_are_read_each_as_a_document(tmp_path):
    prepare.write_readmes(tmp_path)
    documents = documents_in(tmp_path, "readmes")
    assert len(documents) == len(list(tmp_path.iterdir())) > 10
    assert all(len(document.text) > 900 for document in documents)


def test_demo_packages_are_read_as_repositories(tmp_path):
    prepare.copy_packages(tmp_path)
    documents = documents_in(tmp_path, "packages")
    assert len(documents) == len(list(tmp_path.iterdir())) > 20
    assert all(document.text.strip() for document in documents)


def test_demo_instructions_are_read_without_a_reject(tmp_path):
    prepare.write_instructions(tmp_path / "instructions.jsonl")
    (one_set,) = RECIPE.mixture.sets
    reading = SetReading()
    one_set = one_set.model_copy(update={"location": str(tmp_path / "instructions.jsonl")})
    read = list(read_set(one_set, reading, tmp_path, Runtime()))
    assert len(read) == prepare.NUM_INSTRUCTIONS
    assert all(isinstance(one, Conversation) and len(one.messages) == 2 for one in read)
    assert (reading.dropped.empty, reading.dropped.unanswered) == (0, 0)


def test_demo_questions_are_a_judged_suite(tmp_path, window):
    prepare.write_questions(tmp_path, QUESTIONS)
    (config,) = (one for one in RECIPE.evaluation.suites if isinstance(one, LongBenchChatConfig))
    paths = {
        field: tmp_path / Path(getattr(config, field)).name for field in ("questions", "few_shots", "judge_prompt")
    }
    suite = open_suite(config.model_copy(update={field: str(path) for field, path in paths.items()}))
    questions = {question.id: question for question in suite.questions(window)}
    assert len(questions) == len(QUESTIONS)
    for number, one in enumerate(QUESTIONS, start=1):
        question = questions[str(number)]
        assert question.message.startswith(pydoc_data.topics.topics[one["topic"]].strip())
        assert question.message.endswith(one["question"])
        prompt = suite.scoring.prompt(question, "The answer under test.", 0)
        assert "The answer under test." in prompt and one["reference"] in prompt
        assert all(shot["answer"] in prompt for shot in one["answers"])


def test_demo_haystack_gives_the_needle_grid(tmp_path, window):
    prepare.write_haystack(tmp_path)
    (config,) = (one for one in RECIPE.evaluation.suites if isinstance(one, NeedleConfig))
    suite = open_suite(config.model_copy(update={"haystack": str(tmp_path)}))
    questions = suite.questions(window)
    assert len(questions) == len(config.lengths) * len(config.depths)
    assert all(question.message.count(config.needle) == 1 for question in questions)
