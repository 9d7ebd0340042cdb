"""Losses of sequences by their length, from the losses of a pack's tokens.

Shapes: T tokens of a pack, or of the part of one that a rank holds; S its sequences; B length buckets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import Placement

# Tokens at which a bucket begins; the first begins at 0.
BUCKET_EDGES = tuple(1024 * edge for edge in (1, 4, 8, 16, 32, 64))
BUCKETS = ("0-1k", "1k-4k", "4k-8k", "8k-16k", "16k-32k", "32k-64k", "64k-up")


def bucket_of(length: int) -> int:
    """The bucket of a sequence of so many tokens."""
    return bisect_right(BUCKET_EDGES, length)


def bucket_counts(placements: Iterable[Placement]) -> list[int]:
    """Sequences with targets in each bucket, shape (B,)."""
    counts = [0] * len(BUCKETS)
    for placement in placements:
        counts[bucket_of(placement.length)] += placement.targets > 0
    return counts


def bucket_sums(losses_T: NDArray[np.float32], slot: Sequence[Placement], start: int = 0) -> NDArray[np.float64]:
    """Sum over the sequences of each bucket of their mean loss; what other ranks hold of them is left out.

    The parts that the ranks of a pack hold add up to the whole.

    Args:
        losses_T: Loss of each token that is a target, 0 elsewhere, without weights.
        slot: The sequences of the pack.
        start: Tokens of the pack before the first of `losses_T`.

    Returns:
        Shape (B,).
    """
    sums = np.zeros(len(BUCKETS))
    up_to = np.concatenate([[0.0], np.cumsum(losses_T, dtype=np.float64)])
    for placement in slot:
        if placement.targets:
            first, last = np.clip(np.array([0, placement.length]) + placement.offset - start, 0, len(losses_T))
            sums[bucket_of(placement.length)] += (up_to[last] - up_to[first]) / placement.targets
    return sums
