"""The orders in which an epoch's sequences are trained on, one function a strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import EpochOrder, check_steps
from longalign_core.batching.cost import CostModel
from longalign_core.batching.evening import even_out_packs
from longalign_core.batching.grouping import group_by
from longalign_core.batching.packing import pack_best_fit_decreasing, pack_first_fit, pack_next_fit
from longalign_core.errors import DataError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """What an epoch is ordered by.

    Attributes:
        strategy: One of `STRATEGIES`.
        capacity: Tokens a pack holds.
        packs_per_step: Slots of one optimizer step.
        alike: Consecutive slots that cost alike; divides packs_per_step.
        cost_model: What `balanced` compares packs by.
        seed: Of every epoch's order.

    Raises:
        InputError: packs_per_step or alike is below 1, or the second does not divide the first.
    """

    strategy: str
    capacity: int
    packs_per_step: int
    alike: int
    cost_model: CostModel
    seed: int

    def __post_init__(self) -> None:
        check_steps(self.packs_per_step, self.alike)


def order_epochs(lengths: NDArray[np.integer], batching: Batching, epochs: int) -> Iterator[EpochOrder]:
    """Order every epoch afresh, by seed and epoch alone.

    Args:
        lengths: Tokens per sequence, shape (S,).
        batching: What to order by.
        epochs: How many.

    Raises:
        DataError: There is no sequence, one has no token, or lengths are no whole numbers.
        InputError: The longest sequence is over capacity.
    """
    check_lengths(lengths, batching.capacity)
    short = np.asarray(lengths, dtype=np.int32)
    for epoch in range(epochs):
        generator = np.random.default_rng([batching.seed, epoch])
        yield STRATEGIES[batching.strategy](short, batching, generator)


def check_lengths(lengths: NDArray[np.integer], capacity: int) -> None:
    """Refuse lengths that no plan can hold, naming the first such sequence.

    Raises:
        DataError: There is no sequence, one has no token, or lengths are no whole numbers.
        InputError: The longest sequence is over capacity.
    """
    if len(lengths) == 0:
        raise DataError("there is no sequence to plan with; check what was encoded")
    if (dtype := np.asarray(lengths).dtype).kind not in "iu":
        raise DataError(f"lengths are no whole numbers but of {dtype}; give an array of integers")
    shortest = int(np.argmin(lengths))
    if lengths[shortest] < 1:
        raise DataError(f"sequence {shortest} has {lengths[shortest]} tokens; leave out what has none")
    longest = int(np.argmax(lengths))
    if lengths[longest] > capacity:
        raise InputError(
            f"sequence {longest} has {lengths[longest]} tokens but a pack holds {capacity}; "
            "lower encoding.max_tokens or raise batching.capacity"
        )


def _order_naive(lengths: NDArray[np.int32], batching: Batching, generator: np.random.Generator) -> EpochOrder:
    """Any order, one sequence a slot."""
    order = generator.permutation(len(lengths)).astype(np.int32)
    return EpochOrder(order, np.arange(len(order), dtype=np.int32))


def _order_sorted(lengths: NDArray[np.int32], batching: Batching, generator: np.random.Generator) -> EpochOrder:
    """Groups of neighbours in length, one sequence a slot."""
    # Shuffled first, so that equal lengths meet others in every epoch.
    shuffled = generator.permutation(len(lengths)).astype(np.int32)
    drawn = lengths[shuffled]
    by_length, _ = group_by(drawn, int(drawn.max()) + 1)
    order = shuffled[_side_by_side(by_length, batching.alike, generator)]
    return EpochOrder(order, np.arange(len(order), dtype=np.int32))


def _order_longalign(lengths: NDArray[np.int32], batching: Batching, generator: np.random.Generator) -> EpochOrder:
    """Next fit over any order: the reference's rule."""
    order = generator.permutation(len(lengths)).astype(np.int32)
    return EpochOrder(order, pack_next_fit(lengths[order], batching.capacity))


def _order_bfd(lengths: NDArray[np.int32], batching: Batching, generator: np.random.Generator) -> EpochOrder:
    """Best fit decreasing over the whole epoch, packs in any order."""
    shuffled = generator.permutation(len(lengths)).astype(np.int32)
    packs = pack_best_fit_decreasing(lengths[shuffled], batching.capacity)
    return _in_slots(shuffled, packs, generator.permutation(int(packs.max()) + 1))


def _order_balanced(lengths: NDArray[np.int32], batching: Batching, generator: np.random.Generator) -> EpochOrder:
    """Full packs of about equal counts and mixes, packs of like cost side by side."""
    shuffled = generator.permutation(len(lengths)).astype(np.int32)
    drawn = lengths[shuffled]
    packs = even_out_packs(drawn, pack_first_fit(drawn, batching.capacity), batching.capacity, generator)
    costs = np.bincount(packs, weights=batching.cost_model.costs(drawn)).astype(np.float64)
    return _in_slots(shuffled, packs, _side_by_side(np.argsort(costs, kind="stable"), batching.alike, generator))


STRATEGIES: dict[str, Callable[[NDArray[np.int32], Batching, np.random.Generator], EpochOrder]] = {
    "naive": _order_naive,
    "sorted": _order_sorted,
    "longalign": _order_longalign,
    "bfd": _order_bfd,
    "balanced": _order_balanced,
}


def _side_by_side(by_cost: NDArray[np.integer], alike: int, generator: np.random.Generator) -> NDArray[np.integer]:
    """An order in which every `alike` neighbours cost alike, and such groups follow in any order.

    What does not fill a group comes last, so that only the last step has empty slots. It is taken
    from a random place, for its sequences may weigh more in a part-filled step.

    Args:
        by_cost: The packs in rising order of cost, shape (K,).
        alike: Size of a group.
        generator: Of the groups' order.
    """
    num_groups, rest = divmod(len(by_cost), alike)
    start = int(generator.integers(num_groups + 1)) * alike
    last = by_cost[start : start + rest]
    groups = np.delete(by_cost, slice(start, start + rest)).reshape(num_groups, alike)
    return np.concatenate([groups[generator.permutation(num_groups)].ravel(), last])


def _in_slots(sequences: NDArray[np.int32], packs: NDArray[np.int32], pack_order: NDArray[np.integer]) -> EpochOrder:
    """Put packs into slots in the order given; in a pack sequences keep theirs.

    Args:
        sequences: Sequence numbers, shape (S,).
        packs: Pack of each of them, shape (S,).
        pack_order: Pack that goes into each slot, shape (K,).
    """
    slot_of_pack = np.empty(len(pack_order), dtype=np.int32)
    slot_of_pack[pack_order] = np.arange(len(pack_order), dtype=np.int32)
    order, counts = group_by(slot_of_pack[packs], len(pack_order))
    return EpochOrder(sequences[order], np.repeat(np.arange(len(counts), dtype=np.int32), counts))
