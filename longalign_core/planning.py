"""What a run would be: every stage with its address or what it waits for, and its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from longalign_core.config import Recipe, Runtime
from longalign_core.execution import open_context
from longalign_core.pipeline import run_pipeline
from longalign_core.runner import PlanRunner
from longalign_core.stage import Artifact
from longalign_core.store import Manifest

PlanRow = dict[str, Any]
_SUITE_SIZES = {"0k": 0, "5k": 5_000, "10k": 10_000}


def plan_rows(recipe: Recipe, runtime: Runtime) -> list[PlanRow]:
    """One row a stage, in order.

    Returns:
        Keys: stage, label, address (or null), waits_for, done, basis ("counted" from the finished
        artifact, "estimated" from the recipe's targets, or "unknown"), figures, dollars.
    """
    manifests: dict[tuple[str, str], Manifest] = {}

    def remember(artifact: Artifact, manifest: Manifest, found: bool) -> None:
        manifests[artifact.stage, artifact.label] = manifest

    runner = PlanRunner(open_context(runtime, resolve_hub=False), observer=remember)
    run_pipeline(runner, recipe)
    estimates = _estimates(recipe)
    return [_row(one, manifests.get((one.stage, one.label)), estimates.get(one.stage, {})) for one in runner.artifacts]


def _row(artifact: Artifact, manifest: Manifest | None, estimate: dict[str, int]) -> PlanRow:
    basis = "counted" if manifest else "estimated" if estimate else "unknown"
    paid = artifact.stage in ("instruct", "evaluate")
    return {
        "stage": artifact.stage,
        "label": artifact.label,
        "address": artifact.address if artifact.key else None,
        "waits_for": artifact.waits_for,
        "done": artifact.done,
        "basis": basis,
        "figures": dict(manifest.counts) if manifest else dict(estimate),
        "dollars": "price unknown" if paid and not manifest else None,
    }


def _estimates(recipe: Recipe) -> dict[str, dict[str, int]]:
    """Documents, calls and tokens by stage, from the recipe's targets alone.

    The draw is even over the length range, so a document has the range's mean length.
    """
    drawn = recipe.selection.num_documents
    mean_tokens = (recipe.selection.min_tokens + recipe.selection.max_tokens) // 2
    long = drawn if recipe.mixture.suite == "all" else min(drawn, _SUITE_SIZES.get(recipe.mixture.suite, 0))
    short = [one.max_conversations for one in recipe.mixture.sets]
    mixed = {} if None in short else {"conversations": long + sum(cap or 0 for cap in short)}
    return {
        "select": {"documents": drawn, "tokens": drawn * mean_tokens},
        "instruct": {"documents": drawn, "calls": 2 * drawn, "prompt_tokens": 2 * drawn * mean_tokens},
        "mixture": mixed,
        "encode": {"long_tokens": long * mean_tokens},
        "extend": {"tokens": recipe.extension.num_tokens},
        "train": {"long_tokens_per_epoch": long * mean_tokens, "epochs": recipe.batching.epochs},
    }


def plan_table(rows: list[PlanRow]) -> Table:
    """The rows as a table for people."""
    table = Table(title="plan", title_justify="left", show_lines=False)
    for heading in ("stage", "address, or what it waits for", "state", "basis"):
        table.add_column(heading, overflow="fold", min_width=5)
    table.add_column("figures", overflow="fold", ratio=1)
    for row in rows:
        where = row["address"] or f"waits for: {row['waits_for']}"
        figures = ", ".join(
            f"{value:,} {name}" if isinstance(value, int) else f"{value} {name}"
            for name, value in row["figures"].items()
        )
        if row["dollars"]:
            figures = f"{figures}; {row['dollars']}".lstrip("; ")
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
