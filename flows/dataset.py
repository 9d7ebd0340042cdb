"""Corpora to batch plan: what a weekly schedule keeps fresh."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.states import State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.running import num_workers, run_part
from longalign_core.pipeline import make_dataset


@flow(name="dataset", task_runner=ThreadPoolTaskRunner(max_workers=num_workers()), persist_result=False)
def dataset(
    recipe: str = "deployments/recipes/demo.yaml",
    overrides: list[str] | None = None,
    store: str | None = None,
    until: str | None = None,
) -> State[Any]:
    """Make the training data of a recipe: documents, conversations, token store, batch plan.

    Args:
        recipe: Path of the recipe file on the worker.
        overrides: Recipe values to change, such as `selection.num_documents=500`.
        store: Folder or s3://bucket/prefix; empty takes LONGALIGN_STORE.
        until: Last stage to carry out; empty for all of the dataset.
    """
    # Files of training and evaluation need not be where the dataset is made.
    return run_part(recipe, overrides, store, until or "batches", lambda run, _, loaded: make_dataset(run, loaded))
