"""What a run would be: every stage with its address or what it waits for, and its size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from longalign_core.config import Recipe, Runtime
from longalign_core.config.evaluation import LongBenchChatConfig, NeedleConfig
from longalign_core.execution import Context, open_context
from longalign_core.pipeline import run_pipeline
from longalign_core.plan_calls import grounding_calls, instruct_calls, judge_calls
from longalign_core.plan_prices import Pricing, instruct_warnings, price_calls
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
        InputError: The price file is wrong.
    """
    manifests: dict[tuple[str, str], Manifest] = {}

    def remember(artifact: Artifact, manifest: Manifest, found: bool) -> None:
        manifests[artifact.stage, artifact.label] = manifest

    context = open_context(runtime, resolve_hub=False)
    runner = PlanRunner(context, observer=remember)
    run_pipeline(runner, recipe)
    drawn = manifests.get(("select", ""))
    estimates = _estimates(recipe, drawn)
    return [
        plan_row(
            one,
            manifests.get((one.stage, one.label)),
            estimates.get((one.stage, one.label), {}),
            _pricing(one, recipe, context, drawn) if one.stage in _PAID else None,
        )
        for one in runner.artifacts
    ]


def plan_row(
    artifact: Artifact, manifest: Manifest | None, estimate: Figures, pricing: Pricing | None = None
) -> PlanRow:
    """One stage's row.

    Args:
        artifact: The stage's product, there or not.
        manifest: Its manifest; None when it is not there.
        estimate: What the recipe says of its size; empty when nothing.
        pricing: What its model calls will cost; None when they cannot be counted.

    Returns:
        Keys: stage, label, address (or null), waits_for, done, basis ("counted" from the finished
        artifact, "estimated" from the recipe's targets, or "unknown"), figures, dollars (what a finished
        stage has cost, else what it will cost as it is set up; "price unknown"; null for a stage that asks
        no model), gpu_hours (a number, "unknown", or null for a stage that needs no GPU), pricing (null, or
        as `Pricing.as_json` gives it, for a stage that is still to be paid).
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
        "dollars": _dollars(manifest, pricing) if artifact.stage in _PAID else None,
        "gpu_hours": _gpu_hours(manifest) if artifact.stage in _ON_GPUS else None,
        "pricing": None if pricing is None or manifest is not None else pricing.as_json(),
    }


def _dollars(manifest: Manifest | None, pricing: Pricing | None) -> float | str:
    if manifest is not None:
        spent = manifest.counts.get("dollars")
        return spent if isinstance(spent, int | float) else "price unknown"
    return "price unknown" if pricing is None else pricing.dollars


def _pricing(artifact: Artifact, recipe: Recipe, context: Context, drawn: Manifest | None) -> Pricing | None:
    """What a paid stage costs; None where its calls cannot be counted yet, or who answers them is not known."""
    runtime = context.runtime
    product = artifact.address if artifact.key else None
    if artifact.stage == "instruct":
        num_documents, tokens = _drawn(recipe, drawn)
        instruct = recipe.instruct
        warnings = instruct_warnings(recipe, _local_file(context, drawn, "documents.parquet"))
        work = instruct_calls(instruct, num_documents, tokens)
        pricing = price_calls("generator", instruct.generator, work, runtime, product, warnings)
        if instruct.grounding is None:
            return pricing
        judged = grounding_calls(instruct, num_documents, tokens)
        return replace(pricing, grounding=price_calls("judge", instruct.grounding.judge, judged, runtime, product))
    (suite,) = (one for one in recipe.evaluation.suites if one.name == artifact.label)
    if "candidate" in runtime.endpoints:
        return None
    judge = recipe.evaluation.judge
    asked = judge_calls(suite, judge, recipe.evaluation.candidate.max_tokens)
    return None if asked is None else price_calls("judge", judge, asked, runtime, product)


def _local_file(context: Context, manifest: Manifest | None, name: str) -> Path | None:
    """A file of an artifact where it lies on this machine; a plan fetches nothing."""
    if manifest is None:
        return None
    store = context.runtime.store
    places = [context.runtime.scratch / "fetched"] + ([] if "://" in store else [Path(store)])
    found = (place / manifest.folder / name for place in places)
    return next((file for file in found if file.is_file()), None)


def _drawn(recipe: Recipe, drawn: Manifest | None) -> tuple[int, int]:
    """Documents and their tokens: those drawn where they are there, else the recipe's targets.

    Until then, the draw is even over the length range, so a document has the range's mean length.
    """
    if drawn is not None:
        return int(drawn.counts["documents"]), int(drawn.counts["tokens"])
    selection = recipe.selection
    return selection.num_documents, selection.num_documents * ((selection.min_tokens + selection.max_tokens) // 2)


def _gpu_hours(manifest: Manifest | None) -> float | str:
    if manifest is None or not (gpus := manifest.runtime.get("gpus")) or "seconds" not in manifest.provenance:
        return "unknown"
    gpus = int(gpus) * int(manifest.runtime.get("nodes", 1))
    return round(float(manifest.provenance["seconds"]) * gpus / 3600, 4)


def _estimates(recipe: Recipe, drawn: Manifest | None) -> dict[tuple[str, str], Figures]:
    """Documents, calls and tokens by stage and label, from the recipe's targets and questions."""
    from longalign_core.instruct.mixture import num_long_wanted

    num_drawn, tokens = _drawn(recipe, drawn)
    asked = instruct_calls(recipe.instruct, num_drawn, tokens)
    judged = grounding_calls(recipe.instruct, num_drawn, tokens)
    wanted = num_long_wanted(recipe.mixture)
    long = num_drawn if wanted is None else min(num_drawn, wanted)
    long_tokens = tokens * long // num_drawn
    short = [None if one.share else one.max_conversations for one in recipe.mixture.sets]
    mixed = {} if None in short else {"conversations": long + sum(cap or 0 for cap in short)}
    by_stage = {
        "select": {"documents": num_drawn, "tokens": tokens},
        "instruct": {
            "documents": num_drawn,
            "calls": round(sum(one.num_calls for one in asked)),
            "prompt_tokens": round(sum(one.num_calls * one.shared_tokens for one in asked)),
            **({"judge_calls": round(sum(one.num_calls for one in judged))} if judged else {}),
        },
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
