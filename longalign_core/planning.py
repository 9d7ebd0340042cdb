"""What a run would be: every stage with its address or what it waits for, and its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from longalign_core.config import Recipe, Runtime
from longalign_core.config.evaluation import LongBenchChatConfig, NeedleConfig
from longalign_core.execution import describe, open_context
from longalign_core.pipeline import run_pipeline
from longalign_core.runner import PlanRunner
from longalign_core.stage import Artifact
from longalign_core.store import Manifest

PlanRow = dict[str, Any]
Figures = dict[str, int]
_PAID = frozenset({"instruct", "evaluate"})
_ON_GPUS = frozenset({"train", "extend"})


def plan_rows(recipe: Recipe, runtime: Runtime) -> list[PlanRow]:
    """One row a stage, in order.

    Returns:
        As `plan_row` gives them.

    Raises:
        DataError: A file that sizes are estimated from is there but not of its form.
    """
    manifests: dict[tuple[str, str], Manifest] = {}

    def remember(artifact: Artifact, manifest: Manifest, found: bool) -> None:
        manifests[artifact.stage, artifact.label] = manifest

    runner = PlanRunner(open_context(runtime, resolve_hub=False), observer=remember)
    run_pipeline(runner, recipe)
    estimates = _estimates(recipe, manifests.get(("select", "")))
    return [
        plan_row(one, manifests.get((one.stage, one.label)), estimates.get((one.stage, one.label), {}))
        for one in runner.artifacts
    ]


def plan_row(artifact: Artifact, manifest: Manifest | None, estimate: Figures) -> PlanRow:
    """One stage's row.

    Args:
        artifact: The stage's product, there or not.
        manifest: Its manifest; None when it is not there.
        estimate: What the recipe says of its size; empty when nothing.

    Returns:
        Keys: stage, label, address (or null), waits_for, done, basis ("counted" from the finished
        artifact, "estimated" from the recipe's targets, or "unknown"), figures, dollars ("price
        unknown", or null for a stage that asks no model), gpu_hours (a number, "unknown", or null
        for a stage that needs no GPU).
    """
    basis = "counted" if manifest else "estimated" if estimate else "unknown"
    return {
        "stage": artifact.stage,
        "label": artifact.label,
        "address": artifact.address if artifact.key else None,
        "waits_for": artifact.waits_for,
        "done": artifact.done,
        "basis": basis,
        "figures": dict(manifest.counts) if manifest else dict(estimate),
        "dollars": "price unknown" if artifact.stage in _PAID else None,
        "gpu_hours": _gpu_hours(manifest) if artifact.stage in _ON_GPUS else None,
    }


def _gpu_hours(manifest: Manifest | None) -> float | str:
    if manifest is None or not (gpus := manifest.runtime.get("gpus")) or "seconds" not in manifest.provenance:
        return "unknown"
    return round(float(manifest.provenance["seconds"]) * int(gpus) / 3600, 4)


def _estimates(recipe: Recipe, drawn: Manifest | None) -> dict[tuple[str, str], Figures]:
    """Documents, calls and tokens by stage and label, from the recipe's targets and questions.

    What was drawn counts where it is there. Until then, the draw is even over the length range, so a
    document has the range's mean length.
    """
    from longalign_core.instruct.mixture import num_long_wanted

    num_drawn = int(drawn.counts["documents"]) if drawn else recipe.selection.num_documents
    mean_tokens = (recipe.selection.min_tokens + recipe.selection.max_tokens) // 2
    tokens = int(drawn.counts["tokens"]) if drawn else num_drawn * mean_tokens
    wanted = num_long_wanted(recipe.mixture)
    long = num_drawn if wanted is None else min(num_drawn, wanted)
    long_tokens = tokens * long // num_drawn
    short = [None if one.share else one.max_conversations for one in recipe.mixture.sets]
    mixed = {} if None in short else {"conversations": long + sum(cap or 0 for cap in short)}
    by_stage = {
        "select": {"documents": num_drawn, "tokens": tokens},
        "instruct": {"documents": num_drawn, "calls": 2 * num_drawn, "prompt_tokens": 2 * tokens},
        "mixture": mixed,
        "encode": {"long_tokens": long_tokens},
        "extend": {"tokens": recipe.extension.num_tokens},
        "train": {"long_tokens_per_epoch": long_tokens, "epochs": recipe.batching.epochs},
    }
    by_suite = {("evaluate", suite.name): _suite_estimate(suite) for suite in recipe.evaluation.suites}
    return {(stage, ""): figures for stage, figures in by_stage.items()} | by_suite


def _suite_estimate(suite: LongBenchChatConfig | NeedleConfig) -> Figures:
    """Calls of a suite; empty when its questions are not here."""
    if isinstance(suite, NeedleConfig):
        num_questions, num_judged = len(set(suite.lengths)) * len(set(suite.depths)), 0
    elif Path(suite.questions).is_file():
        from longalign_core.evaluation.longbench_chat import LongBenchChat

        num_questions = LongBenchChat(suite).num_questions
        num_judged = num_questions * suite.repeats
    else:
        return {}
    return {
        "questions": num_questions,
        "calls": num_questions + num_judged,
        "candidate_calls": num_questions,
        "judge_calls": num_judged,
    }


def plan_table(rows: list[PlanRow]) -> Table:
    """The rows as a table for people."""
    table = Table(title="plan", title_justify="left", show_lines=False)
    for heading in ("stage", "address, or what it waits for", "state", "basis"):
        table.add_column(heading, overflow="fold", min_width=28 if heading.startswith("address") else 5)
    table.add_column("figures", overflow="fold", ratio=1)
    for row in rows:
        where = row["address"] or f"waits for: {row['waits_for']}"
        figures = describe(row["figures"])
        if row["gpu_hours"] is not None:
            figures = f"{figures}; GPU hours {row['gpu_hours']}"
        if row["dollars"]:
            figures = f"{figures}; {row['dollars']}"
        figures = figures.removeprefix("; ")
        state = "done" if row["done"] else "to do"
        table.add_row(f"{row['stage']} {row['label']}".strip(), where, state, row["basis"], figures)
    return table


def simulation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What each packing strategy makes of the given lengths, for people."""
    table = Table(title="one epoch, by strategy", title_justify="left")
    table.add_column("strategy")
    for heading in ("packs", "utilisation", "idle", "ess", "steps", "sequences a step"):
        table.add_column(heading, justify="right")
    for row in rows:
        fractions = (f"{row[name]:.4f}" for name in ("utilisation", "idle", "ess"))
        table.add_row(
            row["strategy"], f"{row['packs']:,}", *fractions, f"{row['steps']:,}", f"{row['sequences_per_step']:,.1f}"
        )
    return table
