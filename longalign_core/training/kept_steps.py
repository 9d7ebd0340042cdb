"""Which optimizer steps' models are kept."""

from __future__ import annotations

import math

import numpy as np

from longalign_core.batch_plan import BatchPlan
from longalign_core.config.training import TrainingConfig
from longalign_core.errors import InputError


def kept_steps(config: TrainingConfig, plan: BatchPlan) -> tuple[int, ...]:
    """Optimizer steps whose model is kept by its number, in order; the last one is kept as final in any case.

    Args:
        config: Names steps, an interval of steps, and an interval of epochs.
        plan: Its steps and epochs.

    Raises:
        InputError: A named step is none of the plan's.
    """
    last = plan.meta.num_steps
    if beyond := [step for step in config.keep_steps if not 1 <= step <= last]:
        raise InputError(
            f"training.keep_steps names {beyond} but the batch plan has {last} steps; name steps from 1 to {last}"
        )
    kept = set(config.keep_steps)
    if config.keep_every_steps is not None:
        kept.update(range(config.keep_every_steps, last + 1, config.keep_every_steps))
    if config.keep_every_epochs is not None:
        # Epochs differ in their steps where a plan ends inside one.
        ends = np.array([0, *plan.epoch_ends()])
        num_points = math.floor(plan.meta.epochs / config.keep_every_epochs + 1e-9)
        points = config.keep_every_epochs * np.arange(1, num_points + 1)
        kept.update(math.ceil(step - 1e-9) for step in np.interp(points, np.arange(len(ends)), ends))
    return tuple(sorted(kept))
