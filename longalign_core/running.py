"""A whole run: what `longalign run` does, in this process or as a flow run, and what it says at the end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from longalign_core.config import Recipe, Runtime
from longalign_core.config.loading import load_recipe, load_runtime
from longalign_core.errors import EndpointError, GateError, InputError, WaitingError
from longalign_core.execution import Context, describe, open_context
from longalign_core.pipeline import evaluate_checkpoint, run_pipeline
from longalign_core.publishing import find_checkpoint
from longalign_core.recipe_checks import check_inputs
from longalign_core.runner import LocalRunner, PlanRunner, Runner
from longalign_core.serving import named_endpoint
from longalign_core.stage import Artifact
from longalign_core.store import Manifest
from longalign_core.terminal import showing_progress
from longalign_core.training.preparation import check_machines

# Stages with tables and a page of their own.
_VIEWED = ("select", "instruct", "batches")


@dataclass(frozen=True)
class RunSummary:
    """What a run came to.

    Attributes:
        lines: One an artifact.
        page: The scorecard's page; None where there is none.
        gate: How the scorecard passed the recipe's gate.
        shown: Folder of the last product that the run made, where that has tables and a page.
        last_stage: The last that the run made, where there is no scorecard.
    """

    lines: tuple[str, ...]
    page: Path | None
    gate: str
    shown: Path | None = None
    last_stage: str = ""


def part_to_run(context: Context, checkpoint: str | None) -> Callable[[Runner, Recipe], None]:
    """The whole pipeline, or the evaluation of a checkpoint by its address or name.

    Raises:
        LongAlignError: The store has no such checkpoint.
    """
    if checkpoint is None:
        return run_pipeline
    return partial(evaluate_checkpoint, model=find_checkpoint(context.store, checkpoint))


def check_means(
    recipe: Recipe, context: Context, until: str | None, part: Callable[[Runner, Recipe], None] = run_pipeline
) -> None:
    """Find a model without an endpoint or key, or ranks that do not fit, for stages that are still to do.

    What is in the store already needs neither.

    Raises:
        InputError: One of them is missing.
    """
    plan = PlanRunner(context, until=until)
    part(plan, recipe)
    to_do = {one.stage for one in plan.artifacts if not one.done}
    grounding = recipe.instruct.grounding
    for role, model, stage in (
        ("generator", recipe.instruct.generator, "instruct"),
        ("judge", grounding.judge if grounding else None, "instruct"),
        ("judge", recipe.evaluation.judge, "evaluate"),
    ):
        endpoint = named_endpoint(role, context.runtime)
        if model is not None and stage in to_do and endpoint and endpoint.base_url is None and not endpoint.has_key:
            raise InputError(
                f"there is no key for the {role} at {context.runtime.endpoints[role]}; set "
                f"{' or '.join(endpoint.key_variables)} in the environment"
            )
        hosted = model is not None and model.checkpoint is None
        if hosted and role not in context.runtime.endpoints and stage in to_do:
            raise InputError(
                f"the {role} has neither an endpoint nor a checkpoint to serve here; set LONGALIGN_ENDPOINTS to "
                f'{{"{role}": "http://host:port/v1"}}, or name a folder in the recipe'
            )
    if "train" in to_do:
        check_machines(context.runtime, recipe.batching.packs_per_step, "batching")


def check_prefect(url: str) -> None:
    """Make sure that a Prefect server answers. Raises EndpointError."""
    import httpx

    try:
        httpx.get(f"{url.rstrip('/')}/health", timeout=10).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EndpointError(
            f"no Prefect server answers at PREFECT_API_URL, host {urlsplit(url).netloc.rpartition('@')[2] or 'none'} "
            f"({type(error).__name__}); start one with `make serve`, or unset PREFECT_API_URL to run without Prefect"
        ) from error


def run_flow(
    recipe: Path, overrides: list[str], store: str | None, until: str | None, checkpoint: str | None = None
) -> int:
    """Carry a recipe out as a Prefect flow run, in a process of its own; returns the exit code.

    Raises:
        InputError: Something in the recipe or the runtime is wrong, or the flows are not here.
        EndpointError: No Prefect server answers.
    """
    if importlib.util.find_spec("flows") is None or importlib.util.find_spec("prefect") is None:
        raise InputError(
            "PREFECT_API_URL is set but the flows or Prefect are not here; run from a clone of the repository after "
            "`make setup`, or unset PREFECT_API_URL to run without Prefect"
        )
    # A mistake is said before a flow starts, and before Prefect sees an option.
    load_runtime(store=store)
    check_inputs(load_recipe(recipe, overrides), until, checkpoint)
    check_prefect(os.environ["PREFECT_API_URL"])
    command = [sys.executable, "-m", "flows.full", str(recipe)]
    command += [part for override in overrides for part in ("--set", override)]
    command += ["--store", store] if store else []
    command += ["--until", until] if until else []
    command += ["--checkpoint", checkpoint] if checkpoint else []
    environment = {"PREFECT_LOGGING_EXTRA_LOGGERS": "longalign_core", **os.environ}
    code = subprocess.run(command, check=False, env=environment).returncode
    return code if code in (0, InputError.exit_code, GateError.exit_code, WaitingError.exit_code) else 1


def run_here(
    recipe: Recipe, runtime: Runtime, until: str | None, console: Console, checkpoint: str | None = None
) -> None:
    """Carry a recipe out in this process, telling of every stage.

    Raises:
        InputError: Something in the recipe, the runtime or its sources is wrong.
        GateError: Everything is done but the scorecard does not pass the recipe's gate.
        LongAlignError: A stage failed; what was done before it is kept.
    """
    check_inputs(recipe, until, checkpoint)
    context = open_context(runtime)
    context.store.check()
    part = part_to_run(context, checkpoint)
    check_means(recipe, context, until, part)
    since = time.monotonic()

    def tell(artifact: Artifact, manifest: Manifest, found: bool) -> None:
        console.print(stage_line(artifact, manifest, found), highlight=False, markup=False, soft_wrap=True)
        if artifact.stage in _VIEWED and not found and until != artifact.stage:
            _show(artifact.stage, context.store.fetch(manifest), console)

    console.print(f"{recipe.name}: store {context.store.url}", highlight=False, soft_wrap=True)
    with showing_progress(console):
        runner = LocalRunner(context, until=until, observer=tell)
        part(runner, recipe)
    console.print(f"\ndone in {time.monotonic() - since:.1f} s", highlight=False)
    finish(summarise(runner.artifacts, context), console)


def stage_line(artifact: Artifact, manifest: Manifest, found: bool) -> str:
    """One line about a finished stage."""
    how = "found" if found else f"{manifest.provenance.get('seconds', 0):.1f} s"
    name = f"{artifact.stage} {artifact.label}".strip()
    return f"{name:<24} {artifact.address:<28} {how:>9}  {describe(manifest.counts)}"


def summarise(artifacts: list[Artifact], context: Context) -> RunSummary:
    """Addresses, the scorecard's page and the gate of a finished run."""
    lines = tuple(f"{one.stage:<12} {one.label:<20} {one.address}" for one in artifacts)
    cards = [one for one in artifacts if one.stage == "scorecard"]
    if not cards:
        last = artifacts[-1] if artifacts else None
        is_viewed = last is not None and last.stage in _VIEWED
        shown = context.store.fetch(context.store.require(last.address)) if last and is_viewed else None
        return RunSummary(lines, None, "none", shown, last.stage if last else "")
    manifest = context.store.require(cards[-1].address)
    page = context.store.fetch(manifest) / "scorecard.html"
    return RunSummary(lines, page, str(manifest.counts.get("gate", "none")))


def finish(summary: RunSummary, console: Console) -> None:
    """Print what a run came to. Raises GateError when its gate failed."""
    console.print("\naddresses:")
    for line in summary.lines:
        console.print(f"  {line}".rstrip(), highlight=False, markup=False, soft_wrap=True)
    if summary.shown:
        console.print()
        _show(summary.last_stage, summary.shown, console)
    if summary.page:
        console.print("\nscorecard page:")
        console.print(str(summary.page), highlight=False, markup=False, soft_wrap=True)
    if summary.gate == "failed":
        raise GateError("the scorecard does not pass the recipe's gate (evaluation.gate); see the page above")


def _show(stage: str, folder: Path, console: Console) -> None:
    """Print what was drawn, written or planned, and where its page lies."""
    from longalign_core.batching.tables import planned_view
    from longalign_core.drawn_tables import PAGE, drawn_view
    from longalign_core.written_tables import written_view

    view, name = {
        "select": (drawn_view, "selection"),
        "instruct": (written_view, "instruction data"),
        "batches": (planned_view, "batch plan"),
    }[stage]
    console.print(view(folder), highlight=False, markup=False)
    console.print(f"\n{name} page:\n{folder / PAGE}", highlight=False, markup=False, soft_wrap=True)
