"""Naive, sorted and the reference's batches against ours: the product's trainer on two ranks, in turns."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.training_inputs import (
    STRATEGIES,
    Planned,
    Shape,
    mix_lengths,
    model_config,
    plan_strategy,
    write_model,
    write_tokens,
)
from benchmarks.training_ranks import RANKS, ZERO_STAGE, run_tasks, write_job
from longalign_core.batching.cost import CostModel
from longalign_core.batching.figures import slowest

LOCKSTEP_RANKS = 8
_TARGET_SHARE = 0.25
_SHUFFLES = 200


def compare_strategies(shape: Shape, *, num_sequences: int, turns: int, folder: Path) -> dict[str, Any]:
    """Train one epoch of the mix by every strategy, so many times in turns.

    Returns:
        Figures of every strategy in `strategies`, and ratios of them.
    """
    write_model(folder / "model", shape)
    tokens = folder / "tokens"
    write_tokens(tokens, mix_lengths(num_sequences), vocabulary=shape.vocabulary, target_share=_TARGET_SHARE, seed=0)
    cost_model = CostModel.from_model_config(model_config(shape))
    plans, jobs = {}, {}
    for name in STRATEGIES:
        plans[name] = plan_strategy(
            folder / "plans" / name, tokens, name, cost_model, ranks=RANKS, padded=name == "longalign"
        )
        jobs[name] = write_job(
            folder / "jobs" / name,
            plan=plans[name].plan,
            tokens=plans[name].tokens,
            model=folder / "model",
            ranks=RANKS,
            zero_stage=ZERO_STAGE,
            learning_rate=1e-6,
            slot_costs=plans[name].slot_costs,
        )
    found = folder / "found.json"
    job_files = {name: str(file) for name, file in jobs.items()}
    task = {"kind": "compare", "job_files": job_files, "turns": turns, "out_file": str(found)}
    run_tasks([task], ranks=RANKS, folder=folder / "ranks")
    return _figures(plans, json.loads(found.read_text()))


def _figures(plans: dict[str, Planned], turns: dict[str, Any]) -> dict[str, Any]:
    slots = {name: np.median([turn["slots"] for turn in turns[name]], axis=0) for name in STRATEGIES}
    strategies = {name: _of_strategy(plans[name], turns[name], slots[name]) for name in STRATEGIES}

    def ratio(key: str, other: str) -> float:
        return round(strategies["balanced"][key] / strategies[other][key], 3)

    return {
        "strategies": strategies,
        "vs_naive": ratio("tokens_per_second", "naive"),
        "vs_sorted": ratio("tokens_per_second", "sorted"),
        "vs_reference_packing": ratio("tokens_per_second", "longalign"),
        "vs_naive_of_slots": ratio("lockstep_tokens_per_second", "naive"),
        "vs_sorted_of_slots": ratio("lockstep_tokens_per_second", "sorted"),
        "vs_reference_packing_of_slots": ratio("lockstep_tokens_per_second", "longalign"),
        "vs_naive_8_ranks": round(
            _any_order(slots["naive"], LOCKSTEP_RANKS) / slowest(slots["balanced"], LOCKSTEP_RANKS), 3
        ),
        "vs_naive_by_flops": {
            str(ranks): round(plans["naive"].slowest[str(ranks)] / plans["balanced"].slowest[str(ranks)], 3)
            for ranks in (RANKS, LOCKSTEP_RANKS)
        },
        "idle_measured": strategies["balanced"]["idle_measured"],
        "idle_predicted": strategies["balanced"]["idle_predicted"],
    }


def _of_strategy(planned: Planned, turns: list[dict[str, Any]], slots: NDArray[np.float64]) -> dict[str, Any]:
    seconds, idle, predicted = (
        statistics.median(turn[key] for turn in turns) for key in ("seconds", "idle_measured", "idle_predicted")
    )
    return {
        "tokens_per_second": round(planned.real_tokens / seconds, 1),
        "lockstep_tokens_per_second": round(planned.real_tokens / slowest(slots, RANKS), 1),
        "seconds": [round(turn["seconds"], 3) for turn in turns],
        "idle_measured": round(idle, 4),
        "idle_predicted": round(predicted, 4),
        # Waiting, messages, updates, and what other work took of the cores.
        "not_computing": round(max(0.0, 1 - float(slots.sum()) / (RANKS * seconds)), 4),
        "steps": planned.steps,
        "slots": planned.slots,
        "tflop": round(planned.cost / 1e12, 3),
    }


def _any_order(slots: NDArray[np.float64], ranks: int) -> float:
    """Seconds of an epoch of single sequences in lockstep: the mean over random orders, as few slots differ much."""
    draw = np.random.default_rng(0)
    whole = np.concatenate([slots, np.zeros(-len(slots) % ranks)])
    return float(np.mean([slowest(draw.permutation(whole), ranks) for _ in range(_SHUFFLES)]))
