"""Even out how many sequences the packs hold, without opening a pack.

Steps whose packs cost alike would otherwise hold very different numbers of sequences, and where a
step's loss is divided by its own count, a sequence would weigh more or less by its company.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longalign_core.compiled import compiled

# Every round halves the spread of counts among the pairs it can divide. More of either buys little:
# on the paper's mix 60 rounds of 1024 swaps even out by another half a per cent.
_ROUNDS = 30
_SWAPS = 256


def even_out_counts(
    lengths: NDArray[np.int32], packs: NDArray[np.int32], capacity: int, generator: np.random.Generator
) -> NDArray[np.int32]:
    """Re-divide the sequences of pairs of packs until every pack holds about as many.

    In each round packs are paired at random. A pair's sequences are divided anew, in equal counts
    or as near to it as swaps that keep both within capacity are found.

    Args:
        lengths: Tokens per sequence, shape (S,).
        packs: Pack per sequence, shape (S,), every number from 0 to the largest in use.
        capacity: Tokens per pack.
        generator: Of the pairs and the swaps.

    Returns:
        Pack per sequence, shape (S,); as many packs as before.
    """
    num_packs = int(packs.max()) + 1
    members = np.argsort(packs, kind="stable").astype(np.int32)
    counts = np.bincount(packs, minlength=num_packs)
    for _ in range(_ROUNDS):
        if counts.max() - counts.min() < 2:
            break
        paired = generator.permutation(num_packs)
        seed = int(generator.integers(1, 2**62))
        members, counts = _divide_pairs(lengths, members, counts, paired, capacity, seed)
    evened = np.empty_like(packs)
    evened[members] = np.repeat(np.arange(num_packs, dtype=np.int32), counts)
    return evened


@compiled
def _divide_pairs(
    lengths: NDArray[np.int32],
    members: NDArray[np.int32],
    counts: NDArray[np.int64],
    paired: NDArray[np.int64],
    capacity: int,
    seed: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Divide anew each two packs that follow one another in `paired`.

    Returns:
        The members of the packs one pack behind the other, shape (S,), and their counts.
    """
    num_packs = len(counts)
    starts = np.zeros(num_packs + 1, dtype=np.int64)
    starts[1:] = np.cumsum(counts)
    new_members = np.empty_like(members)
    new_counts = counts[paired]
    state = np.uint64(seed)
    start = 0
    for first in range(0, num_packs, 2):
        second = min(first + 1, num_packs - 1)
        if new_counts[first] > new_counts[second]:
            paired[first], paired[second] = paired[second], paired[first]
            new_counts[first], new_counts[second] = new_counts[second], new_counts[first]
        end = start
        for pack in paired[first : second + 1]:
            for member in range(starts[pack], starts[pack + 1]):
                new_members[end] = members[member]
                end += 1
        surplus = (new_counts[second] - new_counts[first]) // 2
        if surplus:
            moved, state = _divide(lengths, new_members[start:end], new_counts[first], surplus, capacity, state)
            new_counts[first] += moved
            new_counts[second] -= moved
        start = end
    return new_members, new_counts


@compiled
def _divide(
    lengths: NDArray[np.int32],
    pool: NDArray[np.int32],
    count: int,
    surplus: int,
    capacity: int,
    state: np.uint64,
) -> tuple[int, np.uint64]:
    """Divide two packs' sequences so that the first pack gets up to `surplus` more.

    Args:
        lengths: Tokens per sequence, shape (S,).
        pool: The first pack's sequences, then the second's. Rearranged in place.
        count: Sequences in the first pack.
        surplus: Sequences the second pack should give up; at least 1.
        capacity: Tokens per pack.
        state: Of the pseudo-random numbers (xorshift), never 0.

    Returns:
        How many more the first pack has now, and the state that follows.
    """
    sizes = lengths[pool]
    # The first pack's tokens must lie between these, so that neither pack is over capacity.
    lowest, highest = sizes.sum() - capacity, capacity
    while surplus:
        wanted = count + surplus
        tried = pool.copy()
        filled = sizes[:wanted].sum()
        for _ in range(_SWAPS):
            if lowest <= filled <= highest:
                pool[:] = tried
                return surplus, state
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            one = np.int64(state >> np.uint64(33)) % wanted
            other = wanted + np.int64(state & np.uint64(0x7FFFFFFF)) % (len(pool) - wanted)
            after = filled + sizes[other] - sizes[one]
            if max(after - highest, lowest - after) <= max(filled - highest, lowest - filled):
                tried[one], tried[other] = tried[other], tried[one]
                sizes[one], sizes[other] = sizes[other], sizes[one]
                filled = after
        sizes = lengths[pool]
        surplus //= 2
    return 0, state
