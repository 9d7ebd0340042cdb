"""Checkpoint to scorecard, over a model that is already trained."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State

from flows.running import run_part
from longalign_core.config import Recipe
from longalign_core.pipeline import evaluate_model, make_dataset, train_model
from longalign_core.runner import RequireRunner, Runner
from longalign_core.running import part_to_run


@flow(name="evaluate", persist_result=False)
def evaluate(
    recipe: str = "deployments/recipes/demo.yaml",
    overrides: list[str] | None = None,
    store: str | None = None,
    checkpoint: str | None = None,
    until: str | None = None,
) -> State[Any]:
    """Judge a checkpoint that is in the store.

    Args:
        recipe: Path of the recipe file on the worker.
        overrides: Recipe values to change, such as `evaluation.candidate.max_tokens=256`.
        store: Folder or s3://bucket/prefix; empty takes LONGALIGN_STORE.
        checkpoint: Address or name of any checkpoint; empty takes the recipe's own.
        until: Last stage to carry out; empty for all.
    """

    def judge_this(run: Runner, there: RequireRunner, recipe: Recipe) -> None:
        part_to_run(run.context, checkpoint)(run, recipe)

    return run_part(recipe, overrides, store, until, judge_this if checkpoint else _judge, checkpoint)


def _judge(run: Runner, there: RequireRunner, recipe: Recipe) -> None:
    data = make_dataset(there, recipe)
    evaluate_model(run, recipe, data, train_model(there, recipe, data))
