"""Checkpoint to scorecard, over a model that is already trained."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State

from flows.running import run_part
from longalign_core.config import Recipe
from longalign_core.pipeline import evaluate_model, make_dataset, train_model
from longalign_core.runner import RequireRunner, Runner


@flow(name="evaluate", persist_result=False)
def evaluate(
    recipe: str = "deployments/recipes/demo.yaml",
    overrides: list[str] | None = None,
    store: str | None = None,
) -> State[Any]:
    """Judge a recipe's checkpoint, which must be in the store.

    Args:
        recipe: Path of the recipe file on the worker.
        overrides: Recipe values to change, such as `evaluation.candidate.max_tokens=256`.
        store: Folder or s3://bucket/prefix; empty takes LONGALIGN_STORE.
    """
    return run_part(recipe, overrides, store, None, _judge)


def _judge(run: Runner, there: RequireRunner, recipe: Recipe) -> None:
    data = make_dataset(there, recipe)
    evaluate_model(run, recipe, data, train_model(there, recipe, data))
