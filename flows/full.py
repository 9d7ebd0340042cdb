"""The whole pipeline as one flow: dataset, training, evaluation.

Started by `prefect deployment run longalign/full`, from the UI, or as `python -m flows.full RECIPE`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import State
from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console

from flows.evaluation import evaluate
from flows.running import num_workers, run_part
from longalign_core.config import Recipe
from longalign_core.config.loading import load_recipe, load_runtime
from longalign_core.errors import LongAlignError, WaitingError
from longalign_core.pipeline import evaluate_model, make_dataset, train_model
from longalign_core.recipe_checks import check_inputs
from longalign_core.runner import RequireRunner, Runner
from longalign_core.running import finish


@flow(name="longalign", task_runner=ThreadPoolTaskRunner(max_workers=num_workers()), persist_result=False)
def longalign(
    recipe: str = "deployments/recipes/demo.yaml",
    overrides: list[str] | None = None,
    store: str | None = None,
    until: str | None = None,
) -> State[Any]:
    """Documents to a judged checkpoint.

    Args:
        recipe: Path of the recipe file on the worker.
        overrides: Recipe values to change, such as `training.optimizer.learning_rate=1e-5`.
        store: Folder or s3://bucket/prefix; empty takes LONGALIGN_STORE.
        until: Last stage to carry out; empty for all.
    """
    return run_part(recipe, overrides, store, until, _everything)


def _everything(run: Runner, _: RequireRunner, recipe: Recipe) -> None:
    data = make_dataset(run, recipe)
    model = train_model(run, recipe, data)
    evaluate_model(run, recipe, data, model)


def main() -> int:
    """Run the flow once from a shell; returns the exit code of the command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.full", description="Run a recipe as a Prefect flow run.")
    parser.add_argument("recipe", help="recipe file")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--store", help="folder or s3://bucket/prefix of the artifacts")
    parser.add_argument("--until", metavar="STAGE", help="last stage to carry out")
    parser.add_argument("--checkpoint", metavar="ADDRESS", help="only evaluate this checkpoint of the store")
    asked = parser.parse_args()
    try:
        # Before Prefect sees an option: it would keep a secret in one as a parameter of the run.
        load_runtime(store=asked.store)
        check_inputs(load_recipe(Path(asked.recipe), asked.overrides), asked.until, asked.checkpoint)
    except LongAlignError as error:
        return _say(error)
    if asked.checkpoint:
        state = evaluate(asked.recipe, asked.overrides, asked.store, asked.checkpoint, asked.until, return_state=True)
    else:
        state = longalign(asked.recipe, asked.overrides, asked.store, asked.until, return_state=True)
    try:
        summary: Any = state.result()  # raises what the run failed with
        if isinstance(summary, WaitingError):
            raise summary
        finish(summary, Console())
    except LongAlignError as error:
        return _say(error)
    return 0


def _say(error: LongAlignError) -> int:
    style = "yellow" if isinstance(error, WaitingError) else "red"
    words = f"{error.label}: {error}"
    Console(stderr=True).print(words, style=style, highlight=False, markup=False, soft_wrap=True)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
