"""What every flow does around its part of the pipeline: recipe and runtime in, errors and summary out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger
from prefect.states import Completed, State

from longalign_core.config import Recipe
from longalign_core.config.loading import load_recipe, load_runtime
from longalign_core.errors import LongAlignError
from longalign_core.execution import open_context
from longalign_core.recipe_checks import check_inputs
from longalign_core.runner import PipelineEnd, RequireRunner
from longalign_core.running import summarise
from tasks.runner import PrefectRunner, state_of

Part = Callable[[PrefectRunner, RequireRunner, Recipe], Any]


def num_workers() -> int:
    """Corpora read at the same time. Read while flows are imported, so what is wrong is said by the run."""
    asked = os.environ.get("LONGALIGN_WORKERS", "")
    return max(1, int(asked)) if asked.isdecimal() else 2


def run_part(
    recipe: str,
    overrides: Sequence[str] | None,
    store: str | None,
    until: str | None,
    part: Part,
    checkpoint: str | None = None,
) -> State[Any]:
    """Carry a part of the pipeline out in the current flow run.

    Args:
        recipe: Path of the recipe file.
        overrides: `section.key=value`, as `--set` takes them.
        store: Folder or URL of the store; None takes LONGALIGN_STORE.
        until: Last stage to carry out; None for all.
        part: Is given a runner that carries out and one that requires what must be there already.
        checkpoint: A checkpoint that alone is to be evaluated; None for the recipe's own products.

    Returns:
        The flow run's state. A user's mistake is a failed state with its sentence; replies still
        to come are one named Waiting.
    """
    log = get_run_logger()
    try:
        loaded = load_recipe(Path(recipe), overrides or ())
        runtime = load_runtime(store=store)
        check_inputs(loaded, until, checkpoint)
        context = open_context(runtime)
        context.store.check()
        runner = PrefectRunner(context, until=until)
        try:
            part(runner, RequireRunner(context), loaded)
        except PipelineEnd:
            log.info("stopped after %s, as asked", until)
        summary = summarise(runner.artifacts, context)
    except LongAlignError as error:
        return state_of(error)
    for line in summary.lines:
        log.info("%s", line)
    return Completed(message=f"{len(summary.lines)} artifacts, gate {summary.gate}", data=summary)
