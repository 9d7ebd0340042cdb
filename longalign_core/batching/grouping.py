"""Things put together by what they belong to: sequences by their pack, packs by their slot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from longalign_core.compiled import compiled


def group_by(owners: NDArray[np.int32], num_owners: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Order things by their owner; those of one owner keep their order.

    Two passes over the things: at 10M a quarter of the time and of the memory of a sort.

    Args:
        owners: Owner of each thing, shape (S,), values in [0, num_owners).
        num_owners: How many owners there are; one may own nothing.

    Returns:
        Numbers of the things, one owner's behind another's, shape (S,), and how many each owner
        has, shape (num_owners,).
    """
    counts = np.bincount(owners, minlength=num_owners)
    return _placed(owners, np.cumsum(counts) - counts), counts


@compiled
def _placed(owners: NDArray[np.int32], next_places: NDArray[np.int64]) -> NDArray[np.int32]:
    order = np.empty(len(owners), dtype=np.int32)
    for thing in range(len(owners)):
        owner = owners[thing]
        order[next_places[owner]] = thing
        next_places[owner] += 1
    return order
