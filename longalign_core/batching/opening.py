"""How a plan begins: the part of it that pictures show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import EpochOrder
from longalign_core.batching.cost import CostModel

PACKS_SHOWN = 16
# More are too thin to be seen, and a picture of millions of short sequences would take minutes.
_MICRO_STEPS_SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The first slots of one epoch of a strategy.

    Attributes:
        strategy: Its name.
        packs: Lengths of the sequences in each of the first slots, longest first.
        costs: Cost of each slot of the first micro-steps, a row a micro-step. Shape (M, R).
        slots_per_step: Slots of one optimizer step.
        is_whole: Whether these are all micro-steps of the epoch.
        utilisation: Tokens ÷ room, of the whole epoch.
        idle: Share of rank time spent waiting in the whole epoch.
    """

    strategy: str
    packs: tuple[tuple[int, ...], ...]
    costs: NDArray[np.float64]
    slots_per_step: int
    is_whole: bool
    utilisation: float
    idle: float


def opening_of(
    order: EpochOrder,
    lengths: NDArray[np.integer],
    cost_model: CostModel,
    *,
    strategy: str,
    ranks: int,
    slots_per_step: int,
    utilisation: float,
    idle: float,
) -> Opening:
    """Take the beginning out of an epoch.

    Args:
        order: The epoch.
        lengths: Tokens per sequence, shape (S,).
        cost_model: What slots cost.
        strategy: What made the order.
        ranks: Data-parallel ranks; divides slots_per_step.
        slots_per_step: Slots of one optimizer step.
        utilisation: Of the whole epoch.
        idle: Of the whole epoch.
    """
    num_slots = (int(order.slots[-1]) // slots_per_step + 1) * slots_per_step
    shown = min(num_slots, _MICRO_STEPS_SHOWN * ranks)
    end = int(np.searchsorted(order.slots, max(shown, PACKS_SHOWN)))
    sequences, slots = order.sequences[:end], order.slots[:end]
    of_slots = np.bincount(slots, cost_model.costs(lengths[sequences]), minlength=shown)[:shown]
    packs = [lengths[sequences[slots == slot]] for slot in range(min(PACKS_SHOWN, int(order.slots[-1]) + 1))]
    return Opening(
        strategy=strategy,
        packs=tuple(tuple(sorted(pack.tolist(), reverse=True)) for pack in packs),
        costs=of_slots.astype(np.float64).reshape(-1, ranks),
        slots_per_step=slots_per_step,
        is_whole=shown == num_slots,
        utilisation=utilisation,
        idle=idle,
    )
