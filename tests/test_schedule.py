"""The learning rate of a step."""

from __future__ import annotations

import pytest

from longalign_core.config.training import Optimizer
from longalign_core.training.schedule import learning_rate


def rates(schedule, num_steps, warmup_fraction):
    optimizer = Optimizer(learning_rate=1.0, schedule=schedule, warmup_fraction=warmup_fraction)
    return [learning_rate(optimizer, step, num_steps) for step in range(num_steps)]


def test_learning_rate_warm_up_rises_in_equal_parts_to_the_peak():
    assert rates("constant", 8, 0.5) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_learning_rate_linear_would_reach_zero_one_step_after_the_last():
    assert rates("linear", 6, 1 / 3) == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])


def test_learning_rate_cosine_is_half_way_down_in_the_middle():
    found = rates("cosine", 4, 0.0)
    assert found == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rate_single_step_is_the_peak(schedule):
    assert rates(schedule, 1, 0.03) == [1.0]
