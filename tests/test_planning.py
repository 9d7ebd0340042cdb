"""What a plan says of sizes, prices and GPU hours."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.spending import ledger_file
from longalign_core.config import Runtime
from longalign_core.config.loading import load_recipe
from longalign_core.config.models import ChatModel
from longalign_core.errors import DataError
from longalign_core.plan_calls import instruct_calls
from longalign_core.plan_prices import instruct_warnings, price_calls
from longalign_core.plan_table import plan_table, price_lines
from longalign_core.planning import PlanRow, plan_row, plan_rows
from longalign_core.record_files import write_records
from longalign_core.records import Document
from longalign_core.stage import Artifact
from longalign_core.store import Manifest
from tests.test_ledger import answer, sent

DEMO = Path(__file__).resolve().parent.parent / "deployments" / "recipes" / "demo.yaml"
QUESTION = {"prompt": "A text.\n\nWhy?", "query": "Why?", "answer": "So."}


def rows_of(folder: Path, questions: str | None, *overrides: str, **runtime_settings: object) -> dict[str, PlanRow]:
    """The demo's plan with a copy of its recipe that names a questions file in `folder`."""
    text = DEMO.read_text().replace("../../.longalign/demo/questions/test_cases.json", "questions.json")
    (folder / "recipe.yaml").write_text(text)
    if questions is not None:
        (folder / "questions.json").write_text(questions)
    runtime = Runtime(store=str(folder / "store"), scratch=folder / "scratch", **runtime_settings)
    rows = plan_rows(load_recipe(folder / "recipe.yaml", list(overrides)), runtime)
    return {f"{row['stage']} {row['label']}".strip(): row for row in rows}


def manifest_of(stage: str, *, gpus: int, seconds: float) -> Manifest:
    return Manifest(
        schema=1,
        stage=stage,
        version=1,
        key="0" * 16,
        attempt="a",
        config={},
        inputs={},
        files=(),
        counts={"steps": 5},
        runtime={"gpus": gpus},
        provenance={"seconds": seconds},
    )


def test_plan_of_each_suite_estimates_its_own_calls(tmp_path):
    rows = rows_of(tmp_path, json.dumps([QUESTION | {"idx": number} for number in (1, 2, 3)]))
    # Two lengths at three depths; three questions, each answer judged twice.
    assert rows["evaluate needle"]["figures"] == {
        "questions": 6,
        "calls": 6,
        "candidate_calls": 6,
        "judge_calls": 0,
    }
    assert rows["evaluate reference_questions"]["figures"] == {
        "questions": 3,
        "calls": 9,
        "candidate_calls": 3,
        "judge_calls": 6,
    }
    assert rows["evaluate needle"]["basis"] == rows["evaluate reference_questions"]["basis"] == "estimated"


def test_plan_without_the_questions_file_does_not_guess_its_calls(tmp_path):
    rows = rows_of(tmp_path, None)
    assert (rows["evaluate reference_questions"]["figures"], rows["evaluate reference_questions"]["basis"]) == (
        {},
        "unknown",
    )
    assert rows["evaluate needle"]["figures"]["calls"] == 6


def test_plan_with_a_questions_file_of_another_form_says_so(tmp_path):
    with pytest.raises(DataError, match="questions"):
        rows_of(tmp_path, "{}")


def test_plan_names_gpu_hours_and_prices_only_where_a_stage_has_them(tmp_path):
    rows = rows_of(tmp_path, None)
    assert {name for name, row in rows.items() if row["gpu_hours"] == "unknown"} == {"train"}
    # Generator and candidate are served here; of the judged suite the questions are not there to be counted.
    assert {name: row["dollars"] for name, row in rows.items() if row["dollars"] is not None} == {
        "instruct": 0.0,
        "evaluate reference_questions": "price unknown",
        "evaluate needle": 0.0,
    }


@pytest.mark.parametrize(("gpus", "hours"), [(8, 4.0), (1, 0.5), (0, "unknown")])
@pytest.mark.parametrize("stage", ["train", "extend"])
def test_plan_row_counts_gpu_hours_of_finished_training(stage, gpus, hours):
    manifest = manifest_of(stage, gpus=gpus, seconds=1800.0)
    row = plan_row(Artifact(stage=stage, key=manifest.key), manifest, {"steps": 7})
    assert (row["gpu_hours"], row["basis"], row["figures"]) == (hours, "counted", {"steps": 5})


def test_plan_row_of_a_paid_stage_says_that_its_price_is_unknown_when_done_too():
    manifest = manifest_of("instruct", gpus=8, seconds=1800.0)
    row = plan_row(Artifact(stage="instruct", key=manifest.key), manifest, {})
    assert (row["dollars"], row["gpu_hours"]) == ("price unknown", None)


def test_plan_table_shows_gpu_hours_and_price(tmp_path):
    trained = plan_row(Artifact(stage="train", key="0" * 16), manifest_of("train", gpus=8, seconds=1800.0), {})
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(plan_table([*rows_of(tmp_path, None).values(), trained]))
    shown = console.export_text()
    for part in (
        "GPU hours unknown",
        "5 steps; GPU hours 4.0",
        "6 candidate calls, 0 judge calls; $0.00, no paid calls",
    ):
        assert part in shown


PRICES = """
schema: 1
date: 2026-01-31
models:
  hosted: {input: 10, output: 50, cached_input: 1, cache_write: 12.5, batch_input: 5, batch_output: 25, seen: x}
  plain: {input: 10.0, output: 50.0, context_tokens: 4096, seen: x}
"""


def priced(folder: Path, model: str = "hosted", **settings: object) -> PlanRow:
    """The instruct row of the demo with a hosted generator: 10 documents of 1,000 tokens."""
    (folder / "prices.yaml").write_text(PRICES)
    overrides = (f"instruct.generator.model={model}", "instruct.generator.checkpoint=null")
    return rows_of(folder, None, *overrides, prices=folder / "prices.yaml", **settings)["instruct"]


# Twenty calls, each 1,000 tokens of document, 150 of request and 320 of reply, which is the longest allowed.
ONLINE = 20 * (1150 * 10 + 320 * 50) / 1e6
CACHED = ONLINE + 10 * 1000 * (12.5 + 1.0 - 2 * 10.0) / 1e6
BATCH = ONLINE / 2


@pytest.mark.parametrize(
    ("endpoint", "calls", "configured", "dollars", "recommended"),
    [
        ("anthropic", "online", "cached", CACHED, "batch"),
        ("openai", "batch", "batch", BATCH, "batch"),
        ("openai-responses+https://gateway.example/v1", "online", "cached", CACHED, "batch"),
        ("http://127.0.0.1:8000/v1", "online", "online", ONLINE, "online"),
        ("http://127.0.0.1:8000/v1", "batch", "online", ONLINE, "online"),
    ],
)
def test_plan_prices_the_run_as_the_endpoint_is_asked_and_recommends_the_cheapest_way(
    tmp_path, endpoint, calls, configured, dollars, recommended
):
    row = priced(tmp_path, endpoints={"generator": endpoint}, generator_calls=calls)
    pricing = row["pricing"]
    assert (pricing["configured"], pricing["recommended"]) == (configured, recommended)
    assert row["dollars"] == pytest.approx(dollars, abs=1e-4)
    assert pricing["costs"]["online"]["dollars"] == pytest.approx(ONLINE, rel=1e-9)
    assert pricing["costs"]["cached"]["dollars"] == pytest.approx(CACHED, rel=1e-9)
    assert pricing["costs"]["batch"]["dollars"] == pytest.approx(BATCH, rel=1e-9)
    assert pricing["costs"]["batch_cached"] is None
    assert (pricing["calls"], pricing["tokens"]) == (20, 20 * 1470)
    assert pricing["price_date"] == "2026-01-31"


def test_plan_without_a_batch_or_cache_price_guesses_none(tmp_path):
    row = priced(tmp_path, "plain", endpoints={"generator": "openai"}, generator_calls="batch")
    assert row["dollars"] == "price unknown"
    assert row["pricing"]["recommended"] == "online"
    assert [row["pricing"]["costs"][mode] for mode in ("cached", "batch", "batch_cached")] == [None] * 3


def test_plan_of_a_model_that_the_price_file_does_not_have_says_what_a_capped_run_will_do(tmp_path):
    row = priced(tmp_path, "hosted-2", endpoints={"generator": "openai"}, budget_dollars=5.0)
    assert row["dollars"] == "price unknown"
    assert row["pricing"]["suffices"] is None
    (warning,) = row["pricing"]["warnings"]
    assert "will refuse to start" in warning
    assert "'hosted-2'" in warning


@pytest.mark.parametrize(
    ("caps", "suffices"),
    [
        ({}, None),
        ({"budget_dollars": ONLINE + 0.01}, True),
        ({"budget_dollars": ONLINE - 0.01}, False),
        ({"budget_tokens": 20 * 1470}, True),
        ({"budget_tokens": 20 * 1470 - 1}, False),
        ({"budget_dollars": 100.0, "budget_tokens": 10}, False),
    ],
)
def test_plan_says_whether_the_budget_suffices(tmp_path, caps, suffices):
    row = priced(tmp_path, endpoints={"generator": "http://127.0.0.1:8000/v1"}, **caps)
    assert row["pricing"]["suffices"] is suffices


def test_plan_row_of_a_started_product_tells_what_was_spent_and_of_a_finished_one_what_it_cost(tmp_path):
    (tmp_path / "prices.yaml").write_text(PRICES)
    recipe = load_recipe(
        DEMO, ["instruct.generator.model=hosted", "instruct.generator.checkpoint=null", "selection.num_documents=4"]
    )
    runtime = Runtime(scratch=tmp_path / "scratch", prices=tmp_path / "prices.yaml", budget_dollars=0.1)
    with Ledger(ledger_file(runtime.scratch)) as ledger:
        answer(ledger, sent(ledger, product="instruct/aa"))
    artifact = Artifact(stage="instruct", key="aa")
    work = instruct_calls(recipe.instruct, 4, 4000)
    pricing = price_calls("generator", recipe.instruct.generator, work, runtime, artifact.address)
    row = plan_row(artifact, None, {"documents": 4}, pricing)
    assert row["pricing"]["spent"] == {"dollars": 0.125, "tokens": 720, "calls": 1}
    assert row["pricing"]["suffices"] is False
    lines = "\n".join(price_lines([row]))
    assert "prices of 2026-01-31" in lines
    assert "spent so far $0.12 on 1 calls; the budget of $0.10 does not suffice" in lines
    done = manifest_of("instruct", gpus=0, seconds=1.0)
    done.counts["dollars"] = 1.5
    row = plan_row(Artifact(stage="instruct", key=done.key, done=True), done, {}, pricing)
    assert (row["dollars"], row["pricing"]) == (1.5, None)


def test_plan_warns_of_documents_that_the_window_does_not_hold(tmp_path):
    recipe = load_recipe(DEMO, ["instruct.generator.context_tokens=1000", "instruct.generator.max_tokens=350"])
    (warning,) = instruct_warnings(recipe, None)
    assert "documents of up to 1,500 tokens are drawn, more than the 500 tokens" in warning
    documents = [
        Document(id=f"a:{tokens}", text="t", source="a", language="en", origin="o", sha256="0", num_tokens=tokens)
        for tokens in (499, 500, 501, 900)
    ]
    write_records(tmp_path / "documents.parquet", documents, Document)
    (warning,) = instruct_warnings(recipe, tmp_path / "documents.parquet")
    assert warning.startswith("2 of 4 documents have more than the 500 tokens")
    assert instruct_warnings(load_recipe(DEMO, []), tmp_path / "documents.parquet") == []


def test_plan_warns_of_more_conversations_than_documents():
    many = ["selection.num_documents=10", "instruct.num_conversations=11"]
    (warning,) = instruct_warnings(load_recipe(DEMO, many), None)
    assert warning.startswith("11 conversations are wanted of 10 documents")
    assert instruct_warnings(load_recipe(DEMO, [*many, "instruct.num_conversations=10"]), None) == []


def test_plan_warns_of_a_window_that_is_smaller_than_the_recipe_says(tmp_path):
    row = priced(tmp_path, "plain", endpoints={"generator": "openai"})
    assert any("window of 8,192 tokens, " in one and "4,096" in one for one in row["pricing"]["warnings"])


def test_plan_prices_the_judge_by_its_prompts(tmp_path):
    (tmp_path / "prices.yaml").write_text(PRICES)
    (tmp_path / "shots.json").write_text(json.dumps([[{"answer": "a" * 30, "score": 5}] * 3]))
    (tmp_path / "judge.txt").write_text("{} " * 9)
    rows = rows_of(
        tmp_path,
        json.dumps([QUESTION | {"idx": 1}]),
        "evaluation.judge.model=hosted",
        "evaluation.judge.checkpoint=null",
        f"evaluation.suites.reference_questions.few_shots={tmp_path / 'shots.json'}",
        f"evaluation.suites.reference_questions.judge_prompt={tmp_path / 'judge.txt'}",
        prices=tmp_path / "prices.yaml",
        endpoints={"judge": "http://127.0.0.1:8000/v1"},
    )
    row = rows["evaluate reference_questions"]
    # Nine slots and spaces: "Why?", "So.", three answers of 30 with a digit; then at most 96 tokens to be judged.
    own = (9 + 4 + 3 + 3 * 31) // 3 + 96
    assert row["pricing"]["calls"] == 2
    assert row["dollars"] == pytest.approx(2 * (own * 10 + 48 * 50) / 1e6, abs=1e-4)
    # A candidate elsewhere is of a price that nobody knows.
    assert rows["evaluate needle"]["dollars"] == 0.0
    away = rows_of(tmp_path, None, endpoints={"candidate": "http://127.0.0.1:9000/v1"})
    assert away["evaluate needle"]["dollars"] == "price unknown"


def judged(folder: Path, *overrides: str, **settings: object) -> PlanRow:
    """The instruct row of the demo with a hosted judge, and a generator that is served here unless told otherwise."""
    (folder / "prices.yaml").write_text(PRICES)
    judge = ("instruct.grounding.judge.model=hosted", "instruct.grounding.judge.max_tokens=500")
    passages = ("instruct.grounding.passages=2", "instruct.grounding.passage_words=100")
    rows = rows_of(folder, None, *judge, *passages, *overrides, prices=folder / "prices.yaml", **settings)
    return rows["instruct"]


def test_plan_prices_the_judge_of_answers_beside_the_generator_and_counts_both_against_the_budget(tmp_path):
    hosted = ("instruct.generator.model=plain", "instruct.generator.checkpoint=null")
    openai = {"generator": "openai", "judge": "openai"}
    row = judged(tmp_path, *hosted, endpoints=openai, generator_calls="batch", budget_tokens=10)
    generator, judge = row["pricing"], row["pricing"]["grounding"]
    assert (generator["model"], judge["model"], judge["role"]) == ("plain", "hosted", "judge")
    assert (generator["calls"], judge["calls"]) == (20, 10)
    assert row["figures"]["judge_calls"] == 10
    # The judge is asked online also where the generator's calls go in batches.
    assert "batch" not in judge["available"]
    # Both prices or none: the generator has none for batches.
    assert row["dollars"] == "price unknown"
    online = judged(tmp_path, *hosted, endpoints=openai)
    alone = online["pricing"]["costs"]["online"]["dollars"]
    judges = online["pricing"]["grounding"]["costs"]["online"]["dollars"]
    assert alone == pytest.approx(ONLINE)
    assert judges == pytest.approx(10 * (judge["own_tokens"] * 10 + 400 * 50) / 1e6)
    assert online["dollars"] == pytest.approx(alone + judges, abs=1e-4)
    both = 20 * 1470 + 10 * (judge["own_tokens"] + 400)
    assert online["pricing"]["suffices"] is None
    for cap, suffices in ((both, True), (both - 1, False)):
        capped = judged(tmp_path, *hosted, endpoints=openai, budget_tokens=cap)
        assert capped["pricing"]["suffices"] is suffices
    for dollars, suffices in ((alone + judges + 0.01, True), (alone + judges - 0.01, False)):
        capped = judged(tmp_path, *hosted, endpoints=openai, budget_dollars=dollars)
        assert capped["pricing"]["suffices"] is suffices


def test_plan_lines_tell_the_judges_price_also_of_a_generator_served_here(tmp_path):
    row = judged(tmp_path, endpoints={"judge": "http://127.0.0.1:8000/v1"}, budget_dollars=1.0)
    own = row["pricing"]["grounding"]["own_tokens"]
    cost = 10 * (own * 10 + 400 * 50) / 1e6
    lines = price_lines([row])
    assert lines[0].startswith(
        f"instruct: 10 judge calls of hosted, {10 * (own + 400):,} tokens, assuming {own} tokens of "
    )
    assert any(f"online without a cache: ${cost:,.2f}, at most" in line and "as set up" in line for line in lines)
    assert lines[-1].endswith("spent so far $0.00 on 0 calls; the budget of $1.00 suffices")
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(plan_table([row]))
    assert f"10 judge calls; about ${cost:,.2f}" in console.export_text()


def test_plan_warns_of_a_judge_without_a_price_where_dollars_are_capped(tmp_path):
    row = judged(tmp_path, "instruct.grounding.judge.model=hosted-2", budget_dollars=1.0)
    assert (row["dollars"], row["pricing"]["suffices"]) == ("price unknown", None)
    (warning,) = [line for line in price_lines([row]) if "warning" in line]
    assert "'hosted-2'" in warning


def test_plan_row_of_finished_instruct_tells_what_it_counted_whoever_judged(tmp_path):
    pricing = price_calls("judge", ChatModel(model="m"), [], Runtime(scratch=tmp_path), None)
    done = manifest_of("instruct", gpus=0, seconds=1.0)
    done.counts["dollars"] = 1.5
    artifact = Artifact(stage="instruct", key=done.key, done=True)
    row = plan_row(artifact, done, {"judge_calls": 7}, replace(pricing, grounding=pricing))
    assert (row["dollars"], row["pricing"], row["figures"]) == (1.5, None, {"steps": 5, "dollars": 1.5})
