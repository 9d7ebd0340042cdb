"""Batch plan to checkpoint, over a dataset that is already made."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State

from flows.running import run_part
from longalign_core.pipeline import make_dataset, train_model


@flow(name="train", persist_result=False)
def train(
    recipe: str = "deployments/recipes/demo.yaml",
    overrides: list[str] | None = None,
    store: str | None = None,
) -> State[Any]:
    """Fine-tune on a recipe's dataset, which must be in the store.

    Args:
        recipe: Path of the recipe file on the worker.
        overrides: Recipe values to change, such as `training.optimizer.learning_rate=1e-5`.
        store: Folder or s3://bucket/prefix; empty takes LONGALIGN_STORE.
    """
    return run_part(
        recipe, overrides, store, None, lambda run, there, loaded: train_model(run, loaded, make_dataset(there, loaded))
    )
