"""How long ranks wait for one another, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from longalign_core.training.waiting import (
    Work,
    costliest_seconds,
    idle_share,
    own_seconds,
    predicted_work,
    rank_idle_shares,
    slot_seconds,
    step_work,
)

# Two ranks, three micro-steps.
SECONDS = np.array([[4.0, 1.0, 3.0], [2.0, 3.0, 3.0]])


def test_step_work_meeting_every_micro_step_waits_for_the_slowest_of_each():
    work = step_work(SECONDS, group=1, every_micro_step=True)
    assert work == Work(ranks=(8.0, 8.0), slowest=10.0)
    # 16 seconds of work in 2 x 10.
    assert idle_share([work]) == pytest.approx(0.2)
    assert rank_idle_shares([work]) == pytest.approx([0.2, 0.2])


def test_step_work_meeting_once_a_step_evens_out_inside_it():
    work = step_work(SECONDS, group=1, every_micro_step=False)
    assert work == Work(ranks=(8.0, 8.0), slowest=8.0)
    assert idle_share([work]) == 0


def test_step_work_groups_that_share_packs_meet_inside_each():
    # Ranks 0 and 1 share packs, 2 and 3 do; the groups take 4 + 3 and 2 + 6 seconds.
    seconds = np.array([[4.0, 1.0], [2.0, 3.0], [2.0, 6.0], [2.0, 2.0]])
    assert step_work(seconds, group=2, every_micro_step=False).slowest == 8
    work = step_work(seconds, group=2, every_micro_step=True)
    assert work == Work(ranks=(5.0, 5.0, 8.0, 4.0), slowest=10.0)
    assert idle_share([work]) == pytest.approx(1 - 22 / 40)


def test_predicted_work_slots_go_to_the_ranks_in_turn():
    # Micro-step 0 has slots 4 and 2, micro-step 1 has 1 and 3.
    costs = np.array([4.0, 2.0, 1.0, 3.0])
    assert predicted_work(costs, ranks=2, group=1, every_micro_step=True) == Work(ranks=(5.0, 5.0), slowest=7.0)
    # Four ranks in groups of two: each does half of its group's slot, and waits as long.
    shared = predicted_work(costs, ranks=4, group=2, every_micro_step=True)
    assert shared == Work(ranks=(2.5, 2.5, 2.5, 2.5), slowest=3.5)
    assert idle_share([shared]) == pytest.approx(1 - 10 / 14)


def test_slot_seconds_are_those_of_the_slowest_rank_of_the_group():
    seconds = np.array([[4.0, 1.0], [2.0, 3.0], [2.0, 6.0], [2.0, 2.0]])
    assert slot_seconds(seconds, 2) == (4, 2, 3, 6)
    assert slot_seconds(seconds, 1) == (4, 2, 2, 2, 1, 3, 6, 2)


def test_costliest_seconds_know_of_ranks_in_lockstep_only_the_costliest_slot():
    seconds = np.array([[5.0, 7.0], [5.1, 6.9]])
    assert costliest_seconds(seconds, np.array([10.0, 4.0, 1.0, 9.0]), 1) == (5.0, 0, 0, 6.9)


def test_idle_share_of_many_steps_weighs_them_by_their_time():
    works = [Work(ranks=(1.0, 3.0), slowest=3.0), Work(ranks=(9.0, 9.0), slowest=9.0)]
    assert idle_share(works) == pytest.approx(1 - 22 / 24)
    assert rank_idle_shares(works) == pytest.approx([2 / 12, 0])


def test_idle_share_of_nothing_known_is_none():
    assert idle_share([Work(ranks=(), slowest=0.0)]) is None


def test_own_seconds_take_the_waiting_out_of_whole_passes():
    # Forward passes of 1 and 2 seconds; both ranks leave the backward pass at 6, the first having waited 3.
    part, whole = np.array([[1.0, 5.0], [2.0, 5.0]]), np.array([[6.0, 15.0], [6.0, 15.0]])
    np.testing.assert_allclose(own_seconds(part, whole), [[3.0, 15.0], [6.0, 15.0]])
