"""What a batch plan is worth: full packs, waiting ranks, even weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import EpochOrder
from longalign_core.batching.cost import CostModel
from longalign_core.batching.figures import PlanFigures, Spread, divisors, slowest, slowest_once_a_step, waiting
from longalign_core.loss_scales import Normaliser, sequence_weights

_NORMALISERS: tuple[Normaliser, ...] = ("step", "epoch", "pack")


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
        # By normaliser, the sums of weights and of their squares.
        self._weight_sums = {name: np.zeros(2) for name in _NORMALISERS}

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
        undivided = self._weights[order.sequences]
        for name, sums in self._weight_sums.items():
            weights = undivided / self._divisors(name, undivided, order.slots, steps)
            sums += weights.sum(), (weights**2).sum()

    def figures(self) -> PlanFigures:
        """The figures of the epochs taken in so far, at least one."""
        counts = np.concatenate(self._counts)
        slot_costs = np.concatenate(self._slot_costs)
        empty_slots = len(slot_costs) - self._packs
        cost = float(slot_costs.sum())
        of_ranks = {ranks: slowest(slot_costs, ranks) for ranks in divisors(self._packs_per_step)}
        of_steps = {ranks: slowest_once_a_step(slot_costs, ranks, self._packs_per_step) for ranks in of_ranks}
        ess = {
            name: float(total**2 / (self._sequences * squares)) if squares else 0.0
            for name, (total, squares) in self._weight_sums.items()
        }
        return PlanFigures(
            packs=self._packs,
            steps=len(counts),
            sequences=self._sequences,
            tokens=self._tokens,
            utilisation=self._tokens / (self._capacity * self._packs),
            idle={str(ranks): waiting(cost, longest, ranks) for ranks, longest in of_ranks.items()},
            idle_once_a_step={str(ranks): waiting(cost, longest, ranks) for ranks, longest in of_steps.items()},
            cost=cost,
            slowest={str(ranks): longest for ranks, longest in of_ranks.items()},
            ess=ess[self._normaliser],
            ess_by_normaliser=ess,
            sequences_per_step=Spread.of(counts),
            long_token_share=Spread.of(np.concatenate(self._long_shares)),
            long_tokens=self._long_tokens,
            empty_slots=empty_slots,
            note=self._note(empty_slots),
        )

    def _divisors(
        self,
        normaliser: Normaliser,
        weights: NDArray[np.float64],
        slots: NDArray[np.integer],
        steps: NDArray[np.integer],
    ) -> NDArray[np.float64] | float:
        """What each placed sequence's weight is divided by, shape (S,) or one for all; 1 where there is no target."""
        if normaliser == "epoch":
            return float(weights.sum()) / int(steps[-1] + 1) or 1.0
        if normaliser == "step":
            sums = np.bincount(steps, weights)[steps]
        else:
            pack_sums = np.bincount(slots, weights)
            slots_with_weight = np.flatnonzero(pack_sums)
            packs_of_step = np.bincount(slots_with_weight // self._packs_per_step, minlength=int(steps[-1]) + 1)
            sums = pack_sums[slots] * packs_of_step[steps]
        return np.where(sums > 0, sums, 1.0)

    def _note(self, empty_slots: int) -> str:
        if not empty_slots:
            return ""
        filled = f"{empty_slots} slots of the last steps are empty"
        if self._normaliser == "epoch":
            return f"{filled}; with the epoch's mean no sequence weighs more for it"
        return f"{filled}: sequences of a part-filled step weigh more than those of the others"
