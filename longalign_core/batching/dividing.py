"""Divide the sequences of two packs anew: counts as equal as capacity allows, long ones dealt to both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longalign_core.compiled import compiled

# Swaps tried before a division is given up. Three times as many raise the evenness of weights (ess)
# on the paper's mix by 0.0002 and take half as long again.
_SWAPS = 8


@compiled
def divide(
    pool_sizes: NDArray[np.int32],
    pool_members: NDArray[np.int32],
    count: int,
    capacity: int,
    sizes: NDArray[np.int32],
    members: NDArray[np.int32],
    state: np.uint64,
) -> tuple[int, np.uint64]:
    """Divide two packs' sequences so that the smaller one holds half of them, or as near to it as is found.

    The sequences are dealt, longest first, each to the pack with fewer tokens. Then the pair whose
    swap comes closest brings both packs within capacity, a swap at a time.

    Args:
        pool_sizes: Tokens of both packs' sequences, longest first, shape (M,).
        pool_members: Those sequences, shape (M,).
        count: Sequences in the smaller pack now.
        capacity: Tokens per pack.
        sizes: Receives the tokens of the first pack's sequences, then the second's, each longest
            first. Shape (M,).
        members: Receives the sequences, shape (M,).
        state: Of the pseudo-random numbers (xorshift), never 0.

    Returns:
        How many sequences the first pack has now, at least `count`, and the state that follows. 0
        where none was found: what `sizes` and `members` hold is then of no use.
    """
    # The first pack's tokens must lie between these, so that neither pack is over capacity.
    lowest = int(pool_sizes.sum()) - capacity
    surplus = len(pool_sizes) // 2 - count
    while True:
        wanted = count + surplus
        filled = _deal(pool_sizes, pool_members, wanted, sizes, members)
        filled, state = _swap_into_bounds(sizes, members, wanted, filled, lowest, capacity, state)
        if lowest <= filled <= capacity:
            return wanted, state
        if surplus == 0:
            return 0, state
        surplus //= 2


@compiled
def _deal(
    pool_sizes: NDArray[np.int32],
    pool_members: NDArray[np.int32],
    wanted: int,
    sizes: NDArray[np.int32],
    members: NDArray[np.int32],
) -> int:
    """Deal a pool to two packs, the first of which gets `wanted`; returns the first one's tokens."""
    first, second = 0, wanted
    first_filled, second_filled = 0, 0
    for place in range(len(pool_sizes)):
        if second == len(pool_sizes) or (first < wanted and first_filled <= second_filled):
            dealt = first
            first += 1
            first_filled += int(pool_sizes[place])
        else:
            dealt = second
            second += 1
            second_filled += int(pool_sizes[place])
        sizes[dealt] = pool_sizes[place]
        members[dealt] = pool_members[place]
    return first_filled


@compiled
def _swap_into_bounds(
    sizes: NDArray[np.int32],
    members: NDArray[np.int32],
    wanted: int,
    filled: int,
    lowest: int,
    highest: int,
    state: np.uint64,
) -> tuple[int, np.uint64]:
    """Swap sequences of two packs until the first one's tokens lie within bounds, or tries run out.

    Returns:
        The first pack's tokens, and the state that follows.
    """
    for _ in range(_SWAPS):
        if lowest <= filled <= highest:
            break
        one, other, beyond = _closest_swap(sizes[:wanted], sizes[wanted:], lowest - filled, highest - filled)
        other += wanted
        if beyond >= max(filled - highest, lowest - filled):
            # No swap comes closer: one at random may lead to another that does.
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            one = int(np.int64(state >> np.uint64(33)) % wanted)
            other = wanted + int(np.int64(state & np.uint64(0x7FFFFFFF)) % (len(sizes) - wanted))
        filled += int(sizes[other] - sizes[one])
        sizes[one], sizes[other] = sizes[other], sizes[one]
        members[one], members[other] = members[other], members[one]
        _settle(sizes[:wanted], members[:wanted], one)
        _settle(sizes[wanted:], members[wanted:], other - wanted)
    return filled, state


@compiled
def _closest_swap(sizes: NDArray[np.int32], others: NDArray[np.int32], least: int, most: int) -> tuple[int, int, int]:
    """The swap between two packs, each longest first, that changes the first one's tokens by `least` to `most`.

    Both are walked through once, as what to swap with becomes shorter along with the sequence.

    Returns:
        Place in the first pack, place in the second, and by how much the change misses the bounds.
    """
    best_one, best_other, best_miss = 0, 0, 2**62
    other = 0
    for one in range(len(sizes)):
        while other < len(others) and others[other] - sizes[one] > most:
            other += 1
        # Neighbours of the bound: the last one whose swap is over it, and the first that is not.
        for near in range(max(0, other - 1), min(other + 1, len(others))):
            change = int(others[near] - sizes[one])
            miss = max(least - change, change - most, 0)
            if miss < best_miss:
                best_one, best_other, best_miss = one, near, miss
        if best_miss == 0:
            break
    return best_one, best_other, best_miss


@compiled
def _settle(sizes: NDArray[np.int32], members: NDArray[np.int32], place: int) -> None:
    """Move the one element that is out of order to where it belongs, longest first."""
    while place > 0 and sizes[place - 1] < sizes[place]:
        sizes[place - 1], sizes[place] = sizes[place], sizes[place - 1]
        members[place - 1], members[place] = members[place], members[place - 1]
        place -= 1
    while place + 1 < len(sizes) and sizes[place + 1] > sizes[place]:
        sizes[place + 1], sizes[place] = sizes[place], sizes[place + 1]
        members[place + 1], members[place] = members[place], members[place + 1]
        place += 1
