"""The figures that say what a batch plan is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longalign_core.loss_scales import Normaliser


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and extremes of a figure over the steps."""

    mean: float
    minimum: float
    maximum: float
    standard_deviation: float

    @classmethod
    def of(cls, values: NDArray[np.floating | np.integer]) -> Spread:
        """The spread of values, at least one."""
        return cls(
            mean=float(values.mean()),
            minimum=float(values.min()),
            maximum=float(values.max()),
            standard_deviation=float(values.std()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFigures:
    """The figures of one epoch, or of several.

    Attributes:
        packs: Slots that hold a sequence.
        utilisation: Tokens ÷ (capacity × packs).
        idle: By number of ranks, the share of rank time spent waiting when ranks meet after every
            micro-step, as under ZeRO-2 and 3. Room left empty is no work, as nothing is padded: where it is
            counted as a sequence of its own, next fit waits 21 % of the time instead of 34 %, and an
            epoch takes as long.
        idle_once_a_step: The same when ranks meet once an optimizer step, as under ZeRO up to 1.
        cost: Of all sequences, in the cost model's unit.
        slowest: By number of ranks, the cost of the slowest rank of every micro-step, added up.
        ess: Evenness of the sequences' weights, (Σw)² ÷ (S Σw²); 1 when all weigh the same.
        ess_by_normaliser: The same for each normaliser.
        sequences_per_step: Over the steps.
        long_token_share: Share of a step's tokens that long sequences hold, over the steps.
        long_tokens: Tokens from which a sequence is called long: an eighth of the capacity.
        empty_slots: Slots without a sequence, all in the last steps of their epochs.
        note: What has to be known about a part-filled last step; empty when there is none.
    """

    packs: int
    steps: int
    sequences: int
    tokens: int
    utilisation: float
    idle: dict[str, float]
    idle_once_a_step: dict[str, float]
    cost: float
    slowest: dict[str, float]
    ess: float
    ess_by_normaliser: dict[Normaliser, float]
    sequences_per_step: Spread
    long_token_share: Spread
    long_tokens: int
    empty_slots: int
    note: str


def slowest(slot_costs: NDArray[np.float64], ranks: int) -> float:
    """Cost of the slowest rank of every micro-step, added up: how long an epoch takes.

    Args:
        slot_costs: Cost of each slot, 0 for an empty one, whole steps. Shape (K,).
        ranks: Data-parallel ranks; divides packs_per_step.
    """
    return float(slot_costs.reshape(-1, ranks).max(axis=1).sum())


def slowest_once_a_step(slot_costs: NDArray[np.float64], ranks: int, packs_per_step: int) -> float:
    """As `slowest`, for ranks that wait for one another only at the end of an optimizer step."""
    of_ranks = slot_costs.reshape(-1, packs_per_step // ranks, ranks).sum(axis=1)
    return float(of_ranks.max(axis=1).sum())


def waiting(cost: float, slowest: float, ranks: int) -> float:
    """Share of rank time spent waiting: 1 − Σ cost ÷ (R · Σ over micro-steps of the largest cost)."""
    # Rounding must not make it a negative nothing.
    return max(0.0, 1.0 - cost / (ranks * slowest))


def divisors(number: int) -> list[int]:
    """All whole divisors, in rising order."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
