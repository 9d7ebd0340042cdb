"""A whole run: what `longalign run` does, in this process or as a flow run, and what it says at the end."""

from __future__ import annotations

import difflib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import orjson
from rich.console import Console

from longalign_core.config import Recipe, Runtime
from longalign_core.config.batching import EncodingConfig
from longalign_core.config.loading import load_recipe, load_runtime, sources_of
from longalign_core.errors import EndpointError, GateError, InputError, WaitingError
from longalign_core.execution import Context, describe, open_context
from longalign_core.pipeline import STAGES, evaluate_checkpoint, run_pipeline
from longalign_core.publishing import find_checkpoint
from longalign_core.runner import LocalRunner, PlanRunner, Runner
from longalign_core.serving import named_endpoint
from longalign_core.stage import Artifact
from longalign_core.store import Manifest
from longalign_core.terminal import showing_progress
from longalign_core.training.base_model import check_positions
from longalign_core.training.preparation import check_machines
from longalign_core.training.vocabularies import check_same_vocabulary

# The stage that first needs a section's files.
_FIRST_USE = {
    "corpora": "ingest",
    "selection": "select",
    "instruct": "instruct",
    "mixture": "mixture",
    "encoding": "encode",
    "training": "train",
    "evaluation": "evaluate",
}


# What `--checkpoint` carries out.
_EVALUATION = ("evaluate", "scorecard")
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


def check_until(until: str | None) -> None:
    """Raise InputError when `until` is no stage."""
    if until is not None and until not in STAGES:
        near = difflib.get_close_matches(until, STAGES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"there is no stage {until!r}; --until takes one of {', '.join(STAGES)}{hint}")


def check_inputs(recipe: Recipe, until: str | None, checkpoint: str | None = None) -> None:
    """Find what a run would miss later, before anything is computed or paid for.

    Args:
        recipe: What is to be made.
        until: Last stage to carry out; None for all.
        checkpoint: A checkpoint that alone is to be evaluated; None for the whole pipeline.

    Raises:
        InputError: `until` is no stage of the recipe, or a file that the recipe names is not there.
    """
    check_until(until)
    if checkpoint is not None:
        if until not in (None, *_EVALUATION):
            raise InputError(f"--checkpoint goes with --until {' or '.join(_EVALUATION)} alone; leave one of them out")
        _check_sources(recipe, "evaluation")
        return
    if until == "extend" and not recipe.extension.enabled:
        raise InputError("--until extend: this recipe does not extend its base model; set extension.enabled=true")
    if until == "protect" and not recipe.cleaning.decontamination_words:
        raise InputError(
            "--until protect: this recipe protects no texts of its evaluation; set cleaning.decontamination_words=13"
        )
    left_out = _left_out(recipe)
    if until in left_out:
        raise InputError(
            f"--until {until}: suite {recipe.mixture.suite} takes no long conversations, so this recipe has no such "
            "stage; set mixture.suite=10k, or stop at a later one"
        )
    last = STAGES.index(until or STAGES[-1])
    if recipe.cleaning.decontamination_words and STAGES.index("protect") <= last and "protect" not in left_out:
        _check_protected(recipe)
    if STAGES.index("encode") <= last:
        _check_chat_template(recipe.encoding)
    if STAGES.index("train") <= last:
        _check_base_model(recipe)
    for section, stage in _FIRST_USE.items():
        if STAGES.index(stage) > last or stage in left_out:
            continue
        _check_sources(recipe, section)


def _check_sources(recipe: Recipe, section: str) -> None:
    value = getattr(recipe, section)
    for item in value if isinstance(value, tuple) else (value,):
        name = f"{section}.{item.name}" if isinstance(value, tuple) else section
        for place, source in sources_of(item, name):
            if not source.startswith("hub:") and "://" not in source and not Path(source).exists():
                raise InputError(
                    f"{place} names {source}, which does not exist; correct the path in the recipe, "
                    "or put the data there"
                )


def _left_out(recipe: Recipe) -> tuple[str, ...]:
    """Stages that the recipe's suite has no use for."""
    documents = () if recipe.needs_documents else ("ingest", "protect", "clean", "select")
    return documents if recipe.mixture.takes_long else (*documents, "instruct")


def _check_protected(recipe: Recipe) -> None:
    for one in recipe.protected_texts().sources:
        if not one.location.startswith("hub:") and "://" not in one.location and not Path(one.location).exists():
            raise InputError(
                f"{one.name} names {one.location}, which does not exist; cleaning.decontamination_words needs the "
                "evaluation's texts when the dataset is made: put them there, or set it to null"
            )


def _check_base_model(recipe: Recipe) -> None:
    """`train` would refuse the base model too, but only after all calls were paid for. One at the hub is left to it."""
    base_model = Path(recipe.training.base_model)
    if not (base_model / "config.json").is_file():
        return
    check_same_vocabulary(Path(recipe.encoding.tokenizer), base_model)
    extension = recipe.extension
    if not (extension.enabled and extension.context_tokens >= recipe.batching.capacity):
        check_positions(base_model, recipe.batching.capacity)


def _check_chat_template(encoding: EncodingConfig) -> None:
    """`encode` would refuse a tokenizer without a template too, but only after all calls were paid for."""
    folder = Path(encoding.tokenizer)
    settings = folder / "tokenizer_config.json"
    if encoding.template is not None or not settings.is_file() or not (folder / "tokenizer.json").is_file():
        return
    with suppress(orjson.JSONDecodeError, AttributeError):  # damaged files are for `encode` to refuse
        in_settings = orjson.loads(settings.read_bytes()).get("chat_template")
        in_files = [folder / name for name in ("chat_template.jinja", "additional_chat_templates")]
        if not in_settings and not any(file.exists() for file in in_files):
            raise InputError(
                f"encoding.tokenizer {encoding.tokenizer} has no chat template; set encoding.template to the name of "
                "one of ours (`longalign keys encoding` lists them), or name the tokenizer of a chat model"
            )


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
