"""What a sequence's loss counts in its optimizer step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Normaliser = Literal["step", "epoch", "pack"]


def sequence_weights(targets: NDArray[np.integer], alpha: float) -> NDArray[np.float64]:
    """N^(1-alpha) of each sequence, what it adds to Z; 0 for one without a target token. Shape (S,)."""
    counts = np.asarray(targets, dtype=np.float64)
    return np.where(counts > 0, counts ** (1.0 - alpha), 0.0)


def step_loss_scales(
    targets: Sequence[Sequence[int]], alpha: float, normaliser: Normaliser, z_epoch: float
) -> tuple[tuple[float, ...], ...]:
    """Factors w_i of a step whose loss is the sum of w_i times sequence i's summed loss.

    With `step` and alpha 1 this is the paper's K / (N_i M) summed in each pack and averaged over the
    K packs, for any number of ranks, accumulation steps and empty slots. `pack` is the biased
    baseline; with alpha 0 it is the paper's equation 3. A sequence without a target token counts
    nothing, nor does a pack of such sequences among the K.

    Args:
        targets: For each slot of the step, the target tokens of its sequences.
        alpha: Loss weight N^-alpha of a target token.
        normaliser: What weights are divided by.
        z_epoch: Mean over the epoch's steps of the sum of N^(1-alpha).
    """
    weights = sequence_weights(np.array([count for slot in targets for count in slot]), alpha).tolist()
    # Exact sums: however the same sequences are packed, `step` gives them the same factors to the last bit.
    if normaliser == "pack":
        rest = iter(weights)
        sums = [math.fsum(islice(rest, len(slot))) for slot in targets]
        num_packs = sum(1 for weight in sums if weight > 0)
        divisors = [weight * num_packs for weight in sums]
    else:
        divisors = [z_epoch if normaliser == "epoch" else math.fsum(weights)] * len(targets)
    return tuple(
        tuple(float(count) ** -alpha / divisor if count else 0.0 for count in slot)
        for slot, divisor in zip(targets, divisors, strict=True)
    )
