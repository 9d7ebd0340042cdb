"""Strategies side by side on the same sequences, each with a step of about as many of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import EpochOrder
from longalign_core.batching.figures import PlanFigures, divisors
from longalign_core.batching.opening import Opening, opening_of
from longalign_core.batching.report import PlanReport
from longalign_core.batching.strategies import Batching, order_epochs

# Strategies that put one sequence into a slot.
UNPACKED = ("naive", "sorted")


class SpreadRow(TypedDict):
    """A figure over the steps."""

    mean: float
    minimum: float
    maximum: float
    standard_deviation: float


class StrategyRow(TypedDict):
    """One epoch of one strategy, with the figures of `PlanFigures`.

    `idle` is that of the number of ranks asked for, `ess` that of the `step` normaliser with alpha 1,
    `sequences_per_step` the mean; `time_vs_ideal` is the epoch's time over that of ranks that never
    wait. `hours` is null where the speed of a GPU is not known.
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
    ess_by_normaliser: dict[str, float]
    sequences_per_step_spread: SpreadRow
    long_token_share: SpreadRow
    long_tokens: int
    empty_slots: int
    sequences: int
    tokens: int
    capacity: int
    cost: float
    time_vs_ideal: float
    hours: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What hours are predicted for.

    Attributes:
        gpus: GPUs in all, a multiple of the ranks; those of one rank share its sequences.
        tflops: What one GPU sustains, in 10^12 FLOPs a second.
        epochs: Passes over the data.
    """

    gpus: int
    tflops: float
    epochs: int = 1

    def hours(self, slowest: float, ranks: int) -> float:
        """Hours of training, each micro-step as long as its slowest rank takes.

        Args:
            slowest: FLOPs of the slowest rank of every micro-step of an epoch, added up.
            ranks: Data-parallel ranks.
        """
        return self.epochs * slowest / (self.gpus / ranks * self.tflops * 1e12) / 3600


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


def order_and_report(
    lengths: NDArray[np.integer], batching: Batching, ranks: int, hardware: Hardware | None = None
) -> tuple[EpochOrder, StrategyRow, Opening]:
    """Order one epoch and say what it is worth.

    Args:
        lengths: Tokens per sequence, shape (S,).
        batching: What to order by; `packs_per_step` is that of a strategy that packs.
        ranks: Data-parallel ranks; divides packs_per_step.
        hardware: What to predict hours for; None predicts none.

    Raises:
        DataError: There is no sequence, or one has no token.
        InputError: The longest sequence is over capacity.
    """
    (order,) = order_epochs(lengths, batching, epochs=1)
    slots = slots_per_step(batching.strategy, lengths, batching.capacity, batching.packs_per_step)
    # With alpha 1 all sequences weigh alike, so target tokens need not be known.
    report = PlanReport(
        lengths=lengths,
        targets=lengths,
        capacity=batching.capacity,
        packs_per_step=slots,
        alpha=1.0,
        normaliser="step",
        cost_model=batching.cost_model,
    )
    report.add(order)
    figures = report.figures()
    opening = opening_of(
        order,
        lengths,
        report.costs,
        strategy=batching.strategy,
        ranks=ranks,
        slots_per_step=slots,
        utilisation=figures.utilisation,
        idle=figures.idle[str(ranks)],
    )
    row = _row(figures, batching, ranks, slots, hardware)
    return order, row, opening


def compare(
    lengths: NDArray[np.integer], batching: Batching, strategies: tuple[str, ...], ranks: int
) -> Iterator[tuple[StrategyRow, Opening]]:
    """One epoch of each strategy, as `order_and_report` has it."""
    for strategy in strategies:
        _, row, opening = order_and_report(lengths, replace(batching, strategy=strategy), ranks)
        yield row, opening


def _row(figures: PlanFigures, batching: Batching, ranks: int, slots: int, hardware: Hardware | None) -> StrategyRow:
    by_ranks = [str(number) for number in divisors(batching.packs_per_step)]
    slowest = figures.slowest[str(ranks)]
    return StrategyRow(
        strategy=batching.strategy,
        packs=figures.packs,
        utilisation=figures.utilisation,
        idle=figures.idle[str(ranks)],
        ess=figures.ess,
        steps=figures.steps,
        sequences_per_step=figures.sequences_per_step.mean,
        ranks=ranks,
        slots_per_step=slots,
        micro_steps=figures.steps * slots // ranks,
        idle_by_ranks={number: figures.idle[number] for number in by_ranks},
        idle_once_a_step_by_ranks={number: figures.idle_once_a_step[number] for number in by_ranks},
        ess_by_normaliser={str(name): value for name, value in figures.ess_by_normaliser.items()},
        sequences_per_step_spread=SpreadRow(**asdict(figures.sequences_per_step)),
        long_token_share=SpreadRow(**asdict(figures.long_token_share)),
        long_tokens=figures.long_tokens,
        empty_slots=figures.empty_slots,
        sequences=figures.sequences,
        tokens=figures.tokens,
        capacity=batching.capacity,
        cost=figures.cost,
        time_vs_ideal=ranks * slowest / figures.cost,
        hours=hardware.hours(slowest, ranks) if hardware else None,
    )
