"""What a plan says of sizes, prices and GPU hours."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from longalign_core.config import Runtime
from longalign_core.config.loading import load_recipe
from longalign_core.errors import DataError
from longalign_core.planning import PlanRow, plan_row, plan_rows, plan_table
from longalign_core.stage import Artifact
from longalign_core.store import Manifest

DEMO = Path(__file__).resolve().parent.parent / "deployments" / "recipes" / "demo.yaml"
QUESTION = {"prompt": "A text.\n\nWhy?", "query": "Why?", "answer": "So."}


def rows_of(folder: Path, questions: str | None) -> dict[str, PlanRow]:
    """The demo's plan with a copy of its recipe that names a questions file in `folder`."""
    text = DEMO.read_text().replace("../../.longalign/demo/questions/test_cases.json", "questions.json")
    (folder / "recipe.yaml").write_text(text)
    if questions is not None:
        (folder / "questions.json").write_text(questions)
    runtime = Runtime(store=str(folder / "store"), scratch=folder / "scratch")
    rows = plan_rows(load_recipe(folder / "recipe.yaml", []), runtime)
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
    assert {name for name, row in rows.items() if row["dollars"]} == {
        "instruct",
        "evaluate reference_questions",
        "evaluate needle",
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
    for part in ("GPU hours unknown", "5 steps; GPU hours 4.0", "6 candidate calls, 0 judge calls; price unknown"):
        assert part in shown
