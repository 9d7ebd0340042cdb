"""The learning rate as a pure function of the step, so that a resumed run has the same one."""

from __future__ import annotations

import math

from longalign_core.config.training import Optimizer


def learning_rate(optimizer: Optimizer, step: int, num_steps: int) -> float:
    """Learning rate of an optimizer step.

    It rises in equal parts to the peak over the warm-up's steps, then decays towards zero, which it
    would reach one step after the last.

    Args:
        optimizer: Peak, warm-up and form of the decay.
        step: From 0.
        num_steps: Steps of the whole run.
    """
    warmup = math.ceil(optimizer.warmup_fraction * num_steps)
    if step < warmup:
        return optimizer.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    match optimizer.schedule:
        case "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            factor = 1 - progress
        case "constant":
            factor = 1.0
    return optimizer.learning_rate * factor
