from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest

from longalign_core.errors import DataError
from longalign_core.evaluation.longbench_chat import LongBenchChat, shot_order
from longalign_core.evaluation.window import PromptWindow
from tests.evaluation_inputs import longbench_chat_config
from tests.tiny_model import tiny_tokenizer


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    return PromptWindow.open(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")), 4096)


def test_shot_order_is_fixed_for_question_and_draw_and_covers_all_orders():
    assert shot_order("7", 1) == shot_order("7", 1)
    for question in ("1", "2", "49"):
        assert {shot_order(question, draw) for draw in range(6)} == set(permutations(range(3)))
    assert len({shot_order(str(question), 0) for question in range(50)}) == 6


def test_judge_prompt_fills_the_benchmarks_template_in_its_order(test_data, tmp_path, window):
    published = test_data / "longbench_chat"
    config = longbench_chat_config(tmp_path).model_copy(
        update={"few_shots": str(published / "few_shots.json"), "judge_prompt": str(published / "prompt_fs.txt")}
    )
    suite = LongBenchChat(config)
    question = next(one for one in suite.questions(window) if one.id == "2")
    prompt = suite.scoring.prompt(question, "My answer.\nIts second line.", 0)
    shots = json.loads((published / "few_shots.json").read_text())[1]
    assert "{}" not in prompt
    assert f"[Question]\n{question.query}\n\n[Reference answer begins]\nRain 2.\n[Reference answer ends]" in prompt
    for shot in shots:
        assert f"{shot['answer']}\n[Assistant's answer ends]\n\nRating: [[{shot['score']}]]" in prompt
    assert prompt.rstrip().endswith("My answer.\nIts second line.\n[Assistant's answer ends]\n\nRating:")
    places = [prompt.index(shots[place]["answer"]) for place in shot_order("2", 0)]
    assert places == sorted(places)


def test_judge_prompt_shows_no_document(tmp_path, window):
    suite = LongBenchChat(longbench_chat_config(tmp_path))
    assert all("it rained" not in suite.scoring.prompt(one, "x", 0) for one in suite.questions(window))


def test_judge_prompt_differs_between_draws_and_not_between_openings(tmp_path, window):
    config = longbench_chat_config(tmp_path)
    question = LongBenchChat(config).questions(window)[0]
    prompts = [LongBenchChat(config).scoring.prompt(question, "x", draw) for draw in (0, 0, 1)]
    assert prompts[0] == prompts[1] != prompts[2]


def test_questions_over_one_document_stand_together_longest_first(tmp_path, window):
    config = longbench_chat_config(tmp_path, num_questions=4)
    rows = json.loads(Path(config.questions).read_text())
    short, long = "A short text.", "A long text. " * 50
    for row, document in zip(rows, [short, long, short, long], strict=True):
        row["prompt"] = f"{document}\n\n{row['query']}"
    Path(config.questions).write_text(json.dumps(rows))
    assert [one.id for one in LongBenchChat(config).questions(window)] == ["2", "4", "1", "3"]


def test_template_with_other_slots_is_refused(tmp_path):
    config = longbench_chat_config(tmp_path)
    Path(config.judge_prompt).write_text("Rate {} against {}.")
    with pytest.raises(DataError, match="2 slots"):
        _ = LongBenchChat(config).scoring


def test_question_without_scored_answers_is_refused(tmp_path):
    config = longbench_chat_config(tmp_path)
    Path(config.few_shots).write_text(json.dumps([[{"answer": "a", "score": 1}] * 3]))
    with pytest.raises(DataError, match="idx 2"):
        _ = LongBenchChat(config).scoring


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '[{"idx": 1}]', '[{"idx": "1", "prompt": "", "query": ""}]', "[3]"]
)
def test_questions_file_of_another_form_is_refused(tmp_path, content):
    config = longbench_chat_config(tmp_path)
    Path(config.questions).write_text(content)
    with pytest.raises(DataError):
        LongBenchChat(config)
