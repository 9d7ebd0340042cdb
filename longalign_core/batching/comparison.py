"""Strategies side by side on the same sequences, each with a step of about as many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import EpochOrder
from longalign_core.batching.cost import CostModel
from longalign_core.batching.figures import PlanFigures, Spread, divisors
from longalign_core.batching.opening import Opening, opening_of
from longalign_core.batching.report import PlanReport
from longalign_core.batching.strategies import STRATEGIES, Batching, order_epochs

# Strategies that put one sequence into a slot.
UNPACKED = ("naive", "sorted")
# What a plan is shown beside: training without packing, and the paper's packing.
BASELINES = ("naive", "longalign")
_MOST_RANKS = 8


class SpreadRow(TypedDict):
    """A figure over the steps."""

    mean: float
    minimum: float
    maximum: float
    standard_deviation: float


class HardwareRow(TypedDict):
    """What hours are predicted for; GPUs and their speed are null where seconds were measured."""

    gpus: int | None
    tflops: float | None
    epochs: int


class StrategyRow(TypedDict):
    """One epoch of one strategy, with the figures of `PlanFigures`.

    `idle` is that of `ranks`, `ess` that of the `step` normaliser, `sequences_per_step` the mean;
    `time_vs_ideal` is the epoch's time over that of ranks that never wait. `hours` and `hardware` are
    null where the speed of a GPU is not known.
    """

    strategy: str
    packs: int
    utilisation: float
    idle: float
    ess: float
    steps: int
    sequences_per_step: float
    ranks: int
    slots_per_step: int
    micro_steps: int
    idle_by_ranks: dict[str, float]
    idle_once_a_step_by_ranks: dict[str, float]
    alpha: float
    ess_by_normaliser: dict[str, float]
    sequences_per_step_spread: SpreadRow
    long_token_share: SpreadRow
    long_tokens: int
    empty_slots: int
    sequences: int
    tokens: int
    capacity: int
    cost: float
    cost_unit: str
    time_vs_ideal: float
    hours: float | None
    hardware: HardwareRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Strategies on the same sequences.

    Attributes:
        rows: Figures, one a strategy.
        openings: How each begins, in the same order.
        source: Where the lengths came from, in words.
    """

    rows: Sequence[StrategyRow]
    openings: Sequence[Opening]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What hours are predicted for.

    Attributes:
        gpus: GPUs in all, a multiple of the ranks; those of one rank share its sequences. None where
            costs are measured seconds.
        tflops: What one GPU sustains, in 10^12 FLOPs a second. None likewise.
        epochs: Passes over the data.
    """

    gpus: int | None = None
    tflops: float | None = None
    epochs: int = 1

    def hours(self, slowest: float, ranks: int, micro_steps: int, cost_model: CostModel) -> float:
        """Hours of training, each micro-step as long as its slowest rank takes.

        Args:
            slowest: Cost of the slowest rank of every micro-step of an epoch, added up.
            ranks: Data-parallel ranks.
            micro_steps: Of an epoch.
            cost_model: What costs were counted by.
        """
        if cost_model.unit == "seconds":
            seconds = slowest + cost_model.pack * micro_steps
        else:
            assert self.gpus and self.tflops, "FLOPs take no time that is known"
            seconds = slowest / (self.gpus / ranks * self.tflops * 1e12)
        return self.epochs * seconds / 3600


def slots_per_step(strategy: str, lengths: NDArray[np.integer], capacity: int, packs_per_step: int) -> int:
    """Slots that make a step of about as many sequences as `packs_per_step` full packs hold.

    A strategy that puts one sequence into a slot needs as many times more slots as sequences fit
    into a pack on average; otherwise its weights would be updated that much more often.

    Args:
        strategy: One of `STRATEGIES`.
        lengths: Tokens per sequence, shape (S,).
        capacity: Tokens a pack holds.
        packs_per_step: Slots of one step of a strategy that packs.

    Returns:
        A multiple of packs_per_step.
    """
    if strategy not in UNPACKED:
        return packs_per_step
    full_packs = -(-int(lengths.sum(dtype=np.int64)) // capacity)
    return packs_per_step * max(1, round(len(lengths) / full_packs))


def describe_epoch(
    order: EpochOrder,
    lengths: NDArray[np.integer],
    batching: Batching,
    ranks: int,
    *,
    targets: NDArray[np.integer] | None = None,
    alpha: float = 1.0,
    hardware: Hardware | None = None,
    figures: PlanFigures | None = None,
) -> tuple[StrategyRow, Opening]:
    """Say what one epoch is worth, and how it begins.

    Args:
        order: The epoch.
        lengths: Tokens per sequence, shape (S,).
        batching: What the epoch was ordered by; `packs_per_step` are the slots of its own step.
        ranks: Data-parallel ranks; divides packs_per_step.
        targets: Target tokens per sequence, shape (S,); None where all weigh alike, as with alpha 1.
        alpha: Loss weight N^-alpha of a target token.
        hardware: What to predict hours for; None predicts none.
        figures: Of this epoch alone; None where they are still to be gathered.
    """
    if figures is None:
        report = PlanReport(
            lengths=lengths,
            targets=lengths if targets is None else targets,
            capacity=batching.capacity,
            packs_per_step=batching.packs_per_step,
            alpha=alpha,
            normaliser="step",
            cost_model=batching.cost_model,
        )
        report.add(order)
        figures = report.figures()
    opening = opening_of(
        order,
        lengths,
        batching.cost_model,
        strategy=batching.strategy,
        ranks=ranks,
        slots_per_step=batching.packs_per_step,
        utilisation=figures.utilisation,
        idle=figures.idle[str(ranks)],
    )
    return _row(figures, batching, ranks, alpha, hardware), opening


def compare_with_baselines(
    order: EpochOrder,
    lengths: NDArray[np.integer],
    targets: NDArray[np.integer],
    batching: Batching,
    *,
    alpha: float,
    source: str,
    figures: PlanFigures | None = None,
    most_sequences: int = 1_000_000,
) -> Comparison:
    """An epoch of a plan beside what `BASELINES` make of the same sequences.

    Args:
        order: The epoch.
        lengths: Tokens per sequence, shape (S,).
        targets: Target tokens per sequence, shape (S,).
        batching: What the epoch was ordered by.
        alpha: Loss weight N^-alpha of a target token.
        source: Where the lengths came from, in words.
        figures: Of this epoch alone, for which all sequences would be gone through again; None where unknown.
        most_sequences: Where there are more, the baselines get a sample of so many: they are only
            looked at, and should not take as long as the plan.
    """
    ranks = max(number for number in divisors(batching.alike) if number <= _MOST_RANKS)
    packed = batching.packs_per_step
    if batching.strategy in UNPACKED:
        in_a_pack = slots_per_step(batching.strategy, lengths, batching.capacity, 1)
        packed = ranks * max(1, round(packed / in_a_pack / ranks))
    plans = {batching.strategy: (order, lengths, targets, batching)}
    if len(lengths) > most_sequences:
        generator = np.random.default_rng(batching.seed)
        sample = generator.choice(len(lengths), most_sequences, replace=False, shuffle=False)
        lengths, targets = lengths[sample], targets[sample]
    for strategy in BASELINES:
        if strategy not in plans:
            slots = slots_per_step(strategy, lengths, batching.capacity, packed)
            baseline = replace(batching, strategy=strategy, packs_per_step=slots, alike=ranks)
            (ordered,) = order_epochs(lengths, baseline, epochs=1)
            plans[strategy] = (ordered, lengths, targets, baseline)
    pairs = [
        describe_epoch(
            placed, tokens, by, ranks, targets=trained, alpha=alpha, figures=figures if placed is order else None
        )
        for placed, tokens, trained, by in (plans[strategy] for strategy in STRATEGIES if strategy in plans)
    ]
    return Comparison(rows=[row for row, _ in pairs], openings=[opening for _, opening in pairs], source=source)


def _row(figures: PlanFigures, batching: Batching, ranks: int, alpha: float, hardware: Hardware | None) -> StrategyRow:
    slowest = figures.slowest[str(ranks)]
    micro_steps = figures.steps * batching.packs_per_step // ranks
    return StrategyRow(
        strategy=batching.strategy,
        packs=figures.packs,
        utilisation=figures.utilisation,
        idle=figures.idle[str(ranks)],
        ess=figures.ess_by_normaliser["step"],
        steps=figures.steps,
        sequences_per_step=figures.sequences_per_step.mean,
        ranks=ranks,
        slots_per_step=batching.packs_per_step,
        micro_steps=micro_steps,
        idle_by_ranks=figures.idle,
        idle_once_a_step_by_ranks=figures.idle_once_a_step,
        alpha=alpha,
        ess_by_normaliser={str(name): value for name, value in figures.ess_by_normaliser.items()},
        sequences_per_step_spread=_spread(figures.sequences_per_step),
        long_token_share=_spread(figures.long_token_share),
        long_tokens=figures.long_tokens,
        empty_slots=figures.empty_slots,
        sequences=figures.sequences,
        tokens=figures.tokens,
        capacity=batching.capacity,
        cost=figures.cost,
        cost_unit=batching.cost_model.unit,
        time_vs_ideal=ranks * slowest / figures.cost,
        hours=hardware.hours(slowest, ranks, micro_steps, batching.cost_model) if hardware else None,
        hardware=_hardware(hardware),
    )


def shared_ranks(rows: Sequence[StrategyRow]) -> list[str]:
    """Numbers of ranks for which all rows have figures, in rising order."""
    return [ranks for ranks in rows[0]["idle_by_ranks"] if all(ranks in row["idle_by_ranks"] for row in rows)]


def _spread(spread: Spread) -> SpreadRow:
    return SpreadRow(
        mean=spread.mean,
        minimum=spread.minimum,
        maximum=spread.maximum,
        standard_deviation=spread.standard_deviation,
    )


def _hardware(hardware: Hardware | None) -> HardwareRow | None:
    if hardware is None:
        return None
    return HardwareRow(gpus=hardware.gpus, tflops=hardware.tflops, epochs=hardware.epochs)
