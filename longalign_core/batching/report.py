"""What a batch plan is worth: full packs, waiting ranks, even weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import EpochOrder
from longalign_core.batching.cost import CostModel
from longalign_core.loss_scales import Normaliser, sequence_weights


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
            micro-step.
        ess: Evenness of the sequences' weights, (Σw)² ÷ (S Σw²); 1 when all weigh the same.
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
    ess: float
    sequences_per_step: Spread
    long_token_share: Spread
    long_tokens: int
    empty_slots: int
    note: str


class PlanReport:
    """Gathers the figures of a plan while its epochs are made.

    Args:
        lengths: Tokens per sequence, shape (S,).
        targets: Target tokens per sequence, shape (S,).
        capacity: Tokens a pack holds.
        packs_per_step: Slots of one optimizer step.
        alpha: Loss weight N^-alpha of a target token.
        normaliser: What weights are divided by.
        cost_model: What waiting is measured by.
    """

    def __init__(
        self,
        *,
        lengths: NDArray[np.integer],
        targets: NDArray[np.integer],
        capacity: int,
        packs_per_step: int,
        alpha: float,
        normaliser: Normaliser,
        cost_model: CostModel,
    ) -> None:
        self._costs = cost_model.costs(lengths)
        self._weights = sequence_weights(targets, alpha)
        self._lengths = lengths
        self._capacity = capacity
        self._packs_per_step = packs_per_step
        self._normaliser = normaliser
        self._long_tokens = max(1, capacity // 8)
        self._slot_costs: list[NDArray[np.float64]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._long_shares: list[NDArray[np.float64]] = []
        self._packs = self._sequences = self._tokens = 0
        self._weight_sum = self._weight_squares = 0.0

    def add(self, order: EpochOrder) -> None:
        """Take in one epoch."""
        num_steps = int(order.slots[-1]) // self._packs_per_step + 1
        num_slots = num_steps * self._packs_per_step
        lengths = self._lengths[order.sequences]
        steps = order.slots // self._packs_per_step
        slot_costs = np.bincount(order.slots, self._costs[order.sequences], num_slots).astype(np.float64)
        self._slot_costs.append(slot_costs)
        self._counts.append(np.bincount(steps, minlength=num_steps))
        tokens = np.bincount(steps, lengths, num_steps)
        long_tokens = np.bincount(steps, np.where(lengths >= self._long_tokens, lengths, 0), num_steps)
        self._long_shares.append(long_tokens / tokens)
        self._packs += int(np.count_nonzero(slot_costs))
        self._sequences += len(order.sequences)
        self._tokens += int(lengths.sum(dtype=np.int64))
        weights = self._weights[order.sequences] / self._divisors(order, steps)
        self._weight_sum += float(weights.sum())
        self._weight_squares += float((weights**2).sum())

    def figures(self) -> PlanFigures:
        """The figures of the epochs taken in so far, at least one."""
        counts = np.concatenate(self._counts)
        slot_costs = np.concatenate(self._slot_costs)
        empty_slots = len(slot_costs) - self._packs
        return PlanFigures(
            packs=self._packs,
            steps=len(counts),
            sequences=self._sequences,
            tokens=self._tokens,
            utilisation=self._tokens / (self._capacity * self._packs),
            idle={str(ranks): idle(slot_costs, ranks) for ranks in divisors(self._packs_per_step)},
            ess=self._weight_sum**2 / (self._sequences * self._weight_squares) if self._weight_squares else 0.0,
            sequences_per_step=Spread.of(counts),
            long_token_share=Spread.of(np.concatenate(self._long_shares)),
            long_tokens=self._long_tokens,
            empty_slots=empty_slots,
            note=self._note(empty_slots),
        )

    def _divisors(self, order: EpochOrder, steps: NDArray[np.integer]) -> NDArray[np.float64]:
        """What each placed sequence's weight is divided by, shape (S,); 1 where there is no target."""
        weights = self._weights[order.sequences]
        if self._normaliser == "epoch":
            return np.full(len(steps), weights.sum() / (steps[-1] + 1) or 1.0)
        if self._normaliser == "step":
            sums = np.bincount(steps, weights)[steps]
        else:
            pack_sums = np.bincount(order.slots, weights)
            slots_with_weight = np.flatnonzero(pack_sums)
            packs_of_step = np.bincount(slots_with_weight // self._packs_per_step, minlength=int(steps[-1]) + 1)
            sums = pack_sums[order.slots] * packs_of_step[steps]
        return np.where(sums > 0, sums, 1.0)

    def _note(self, empty_slots: int) -> str:
        if not empty_slots:
            return ""
        filled = f"{empty_slots} slots of the last steps are empty"
        if self._normaliser == "epoch":
            return f"{filled}; with the epoch's mean no sequence weighs more for it"
        return f"{filled}: sequences of a part-filled step weigh more than those of the others"


def idle(slot_costs: NDArray[np.float64], ranks: int) -> float:
    """Share of rank time spent waiting: 1 − Σ cost ÷ (R · Σ over micro-steps of the largest cost).

    Args:
        slot_costs: Cost of each slot, 0 for an empty one, whole steps. Shape (K,).
        ranks: Data-parallel ranks; divides packs_per_step.
    """
    slowest = slot_costs.reshape(-1, ranks).max(axis=1).sum()
    return float(1.0 - slot_costs.sum() / (ranks * slowest))


def divisors(number: int) -> list[int]:
    """All whole divisors, in rising order."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
