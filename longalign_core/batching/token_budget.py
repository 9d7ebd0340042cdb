"""The order of training on a number of tokens, rather than on a number of epochs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import EpochOrder
from longalign_core.batching.strategies import STRATEGIES, Batching, check_lengths


def order_tokens(lengths: NDArray[np.integer], batching: Batching, num_tokens: int) -> Iterator[EpochOrder]:
    """Order epochs afresh until `num_tokens` are reached, by seed and epoch alone.

    The last epoch has only as many sequences, drawn by the seed, as reach what is left, so at most
    one sequence's tokens are too many.

    Args:
        lengths: Tokens per sequence, shape (S,).
        batching: What to order by.
        num_tokens: Tokens of all epochs together, at least 1.

    Raises:
        DataError: There is no sequence, one has no token, or lengths are no whole numbers.
        InputError: The longest sequence is over capacity.
    """
    check_lengths(lengths, batching.capacity)
    short = np.asarray(lengths, dtype=np.int32)
    total = int(short.sum(dtype=np.int64))
    epochs = -(-num_tokens // total)
    for epoch in range(epochs):
        generator = np.random.default_rng([batching.seed, epoch])
        chosen = np.arange(len(short))
        if epoch == epochs - 1:
            drawn = generator.permutation(len(short))
            rest = num_tokens - epoch * total
            enough = int(np.searchsorted(np.cumsum(short[drawn], dtype=np.int64), rest)) + 1
            chosen = np.sort(drawn[:enough])
        order = STRATEGIES[batching.strategy](short[chosen], batching, generator)
        yield EpochOrder(chosen[order.sequences], order.slots)
