"""Even out what the packs hold, without opening a pack: how many sequences, and how many long ones.

Steps whose packs cost alike would otherwise hold very different numbers of sequences, and where a
step's loss is divided by its own count, a sequence would weigh more or less by its company. And
some steps would hold nothing but short sequences.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longalign_core.batching.dividing import divide
from longalign_core.batching.grouping import group_by
from longalign_core.compiled import compiled

# On the paper's mix twice as many raise the evenness of weights (ess) by 0.001 only.
_ROUNDS = 20
# Packs that are paired with one another. With their sequences they stay in a core's cache; a larger
# block is slower and no more even, as the packs of each are drawn at random.
_BLOCK = 4096


def even_out_packs(
    lengths: NDArray[np.int32], packs: NDArray[np.int32], capacity: int, generator: np.random.Generator
) -> NDArray[np.int32]:
    """Re-divide the sequences of pairs of packs until every pack holds about as many.

    In each round packs are paired at random and a pair's sequences dealt anew (see `divide`), which
    spreads the long ones as well. On the paper's mix the share of long tokens then differs between
    packs hardly more than it must, as the longest sequences fill a pack alone.

    Args:
        lengths: Tokens per sequence, shape (S,).
        packs: Pack per sequence, shape (S,), every number from 0 to the largest in use.
        capacity: Tokens per pack.
        generator: Of the pairs.

    Returns:
        Pack per sequence, shape (S,); as many packs as before, in any order.
    """
    num_packs = int(packs.max()) + 1
    # Packs opened early hold other sequences than late ones, so blocks are drawn, not cut.
    members, counts = group_by(generator.permutation(num_packs).astype(np.int32)[packs], num_packs)
    _even_out_blocks(lengths, members, counts, capacity, int(generator.integers(1, 2**62)))
    evened = np.empty_like(packs)
    evened[members] = np.repeat(np.arange(num_packs, dtype=np.int32), counts)
    return evened


@compiled
def _even_out_blocks(
    lengths: NDArray[np.int32], members: NDArray[np.int32], counts: NDArray[np.int64], capacity: int, seed: int
) -> None:
    """Even out each block of packs by itself.

    Args:
        lengths: Tokens per sequence, shape (S,).
        members: Sequences, one pack's behind another's, shape (S,). Rearranged in place.
        counts: Sequences of each pack, shape (K,). Changed in place.
        capacity: Tokens per pack.
        seed: Of the pairs, never 0.
    """
    state = np.uint64(seed)
    start = 0
    for first in range(0, len(counts), _BLOCK):
        block_counts = counts[first : first + _BLOCK]
        end = start + block_counts.sum()
        block_members = members[start:end].copy()
        block_sizes = lengths[block_members]
        _sort_packs(block_sizes, block_members, block_counts)
        for _ in range(_ROUNDS):
            block_sizes, block_members, block_counts, state = _divide_pairs(
                block_sizes, block_members, block_counts, capacity, state
            )
        members[start:end] = block_members
        counts[first : first + _BLOCK] = block_counts
        start = end


@compiled
def _sort_packs(sizes: NDArray[np.int32], members: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
    """Put the longest sequence of every pack first, in place."""
    start = 0
    for count in counts:
        end = start + count
        by_size = start + np.argsort(-sizes[start:end], kind="mergesort")
        sizes[start:end] = sizes[by_size]
        members[start:end] = members[by_size]
        start = end


@compiled
def _divide_pairs(
    sizes: NDArray[np.int32],
    members: NDArray[np.int32],
    counts: NDArray[np.int64],
    capacity: int,
    state: np.uint64,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], np.uint64]:
    """Pair the packs at random, and divide each pair's sequences anew.

    Args:
        sizes: Tokens per member, longest first in each pack, shape (S,).
        members: Sequences, one pack's behind another's, shape (S,).
        counts: Sequences of each pack, shape (K,).
        capacity: Tokens per pack.
        state: Of the pseudo-random numbers (xorshift), never 0.

    Returns:
        Sizes, members, counts and state that follow. The packs stand in another order.
    """
    starts = np.cumsum(counts) - counts
    order, state = _shuffled(len(counts), state)
    new_sizes, new_members, new_counts = np.empty_like(sizes), np.empty_like(members), counts[order]
    pool_sizes, pool_members = np.empty_like(sizes), np.empty_like(members)
    start = 0
    for pair in range(0, len(order), 2):
        one = order[pair]
        end = start + counts[one]
        if pair + 1 == len(order):
            new_sizes[start:end] = sizes[starts[one] :][: counts[one]]
            new_members[start:end] = members[starts[one] :][: counts[one]]
            break
        other = order[pair + 1]
        if counts[one] > counts[other]:
            one, other = other, one
        end = start + counts[one] + counts[other]
        _merge(sizes, members, starts[one], counts[one], starts[other], counts[other], pool_sizes, pool_members)
        count, state = divide(
            pool_sizes[: end - start],
            pool_members[: end - start],
            counts[one],
            capacity,
            new_sizes[start:end],
            new_members[start:end],
            state,
        )
        if not count:
            count = counts[one]
            for pack in (one, other):
                for member in range(starts[pack], starts[pack] + counts[pack]):
                    new_sizes[start] = sizes[member]
                    new_members[start] = members[member]
                    start += 1
        new_counts[pair] = count
        new_counts[pair + 1] = counts[one] + counts[other] - count
        start = end
    return new_sizes, new_members, new_counts, state


@compiled
def _shuffled(count: int, state: np.uint64) -> tuple[NDArray[np.int64], np.uint64]:
    order = np.arange(count)
    for last in range(count - 1, 0, -1):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        drawn = np.int64(state >> np.uint64(1)) % (last + 1)
        order[last], order[drawn] = order[drawn], order[last]
    return order, state


@compiled
def _merge(
    sizes: NDArray[np.int32],
    members: NDArray[np.int32],
    one: int,
    one_count: int,
    other: int,
    other_count: int,
    pool_sizes: NDArray[np.int32],
    pool_members: NDArray[np.int32],
) -> None:
    """Merge two packs, given by where they start and how many they hold, into one pool, longest first."""
    one_end, other_end = one + one_count, other + other_count
    for place in range(one_count + other_count):
        if other == other_end or (one < one_end and sizes[one] >= sizes[other]):
            taken = one
            one += 1
        else:
            taken = other
            other += 1
        pool_sizes[place] = sizes[taken]
        pool_members[place] = members[taken]
