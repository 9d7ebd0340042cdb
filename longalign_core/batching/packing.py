"""Sequences to packs: first fit, next fit, best fit. Nothing is dropped, the last pack included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longalign_core.batching.grouping import group_by
from longalign_core.compiled import compiled

# Children of a node in the tree of rooms: their 32-bit values fill one cache line.
_FAN_OUT = 16


def pack_first_fit(lengths: NDArray[np.int32], capacity: int) -> NDArray[np.int32]:
    """Assign each sequence, in order, to the first pack with room.

    Args:
        lengths: Tokens per sequence. Shape (S,), values in [1, capacity].
        capacity: Tokens per pack.

    Returns:
        Pack per sequence, shape (S,). Packs are numbered in order of opening.
    """
    # No two packs could be joined into one, so any two together hold more than one's capacity.
    most_packs = min(len(lengths), 2 * int(lengths.sum(dtype=np.int64)) // capacity + 2)
    widths = [most_packs]
    while widths[-1] > 1:
        widths.append(-(-widths[-1] // _FAN_OUT))
    # Levels lie one behind the other, leaves first, each padded to whole nodes.
    starts = np.cumsum([0, *(-(-width // _FAN_OUT) * _FAN_OUT for width in widths)])
    largest_room = np.zeros(starts[-1], dtype=np.int32)
    for start, width in zip(starts, widths, strict=False):
        largest_room[start : start + width] = capacity
    return _first_fit(lengths, largest_room, starts[:-1])


def pack_next_fit(lengths: NDArray[np.int32], capacity: int) -> NDArray[np.int32]:
    """Fill one pack after the other: the reference code's rule, which never looks back.

    Unlike the reference it keeps the last pack. Arguments and result as for `pack_first_fit`.
    """
    return _next_fit(lengths, capacity)


def pack_best_fit_decreasing(lengths: NDArray[np.int32], capacity: int) -> NDArray[np.int32]:
    """Assign the sequences, longest first, each to the fullest pack with room.

    Arguments and result as for `pack_first_fit`.
    """
    longest = lengths.max()
    order, _ = group_by(longest - lengths, int(longest))
    packs = np.empty(len(lengths), dtype=np.int32)
    packs[order] = _best_fit(lengths[order], capacity)
    return packs


@compiled
def _first_fit(
    lengths: NDArray[np.int32], largest_room: NDArray[np.int32], starts: NDArray[np.int64]
) -> NDArray[np.int32]:
    packs = np.empty(len(lengths), dtype=np.int32)
    for sequence in range(len(lengths)):
        length = lengths[sequence]
        place = 0
        for level in range(len(starts) - 1, -1, -1):
            place *= _FAN_OUT
            while largest_room[starts[level] + place] < length:
                place += 1
        packs[sequence] = place
        largest_room[place] -= length
        for level in range(len(starts) - 1):
            first = starts[level] + place // _FAN_OUT * _FAN_OUT
            largest = largest_room[first]
            for child in range(1, _FAN_OUT):
                largest = max(largest, largest_room[first + child])
            place //= _FAN_OUT
            if largest_room[starts[level + 1] + place] == largest:
                break
            largest_room[starts[level + 1] + place] = largest
    return packs


@compiled
def _next_fit(lengths: NDArray[np.int32], capacity: int) -> NDArray[np.int32]:
    packs = np.empty(len(lengths), dtype=np.int32)
    pack, room = 0, capacity
    for sequence in range(len(lengths)):
        if lengths[sequence] > room:
            pack += 1
            room = capacity
        packs[sequence] = pack
        room -= lengths[sequence]
    return packs


@compiled
def _best_fit(lengths: NDArray[np.int32], capacity: int) -> NDArray[np.int32]:
    packs = np.empty(len(lengths), dtype=np.int32)
    # `filled[leaves + room]` counts the open packs with that room, and a node those below it.
    leaves = 1
    while leaves <= capacity:
        leaves *= 2
    filled = np.zeros(2 * leaves, dtype=np.int32)
    # Packs of equal room in a chain: the last one put there, and for each pack the one before it.
    last_with_room = np.full(capacity + 1, -1, dtype=np.int32)
    before = np.full(len(lengths), -1, dtype=np.int32)
    num_packs = 0
    for sequence in range(len(lengths)):
        length = lengths[sequence]
        node = leaves + length
        while node > 1 and filled[node] == 0:
            # Go up until there is a right neighbour, where the next larger rooms are.
            while node > 1 and node % 2 == 1:
                node //= 2
            if node > 1:
                node += 1
        if node > 1:
            while node < leaves:
                node = 2 * node if filled[2 * node] else 2 * node + 1
            room = node - leaves
            pack = last_with_room[room]
            last_with_room[room] = before[pack]
            while node >= 1:
                filled[node] -= 1
                node //= 2
        else:
            pack, room = num_packs, capacity
            num_packs += 1
        packs[sequence] = pack
        room -= length
        before[pack] = last_with_room[room]
        last_with_room[room] = pack
        node = leaves + room
        while node >= 1:
            filled[node] += 1
            node //= 2
    return packs
