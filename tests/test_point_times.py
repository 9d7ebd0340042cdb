"""When resume points are made, and the seeds of what is random."""

from __future__ import annotations

from longalign_core.training.point_times import PointTimes, slot_seed


class Clock:
    def __init__(self):
        self.seconds = 1_000.0

    def __call__(self):
        return self.seconds


def steps_with_points(times, clock, durations):
    """Steps after which a point is made, by the seconds of each step; a point itself takes 30."""
    points = []
    for step, seconds in enumerate(durations, start=1):
        clock.seconds += seconds
        if times.due(step):
            points.append(step)
            clock.seconds += 30
            times.made()
    return points


def test_points_by_steps_alone():
    clock = Clock()
    assert steps_with_points(PointTimes(3, None, clock), clock, [1_000] * 8) == [3, 6]


def test_points_by_time_count_from_the_last_point_made():
    clock = Clock()
    # Two minutes since the start, then since a point was there: that of step 5 resets the time too.
    durations = [50, 50, 50, 50, 10, 115, 5, 1]
    assert steps_with_points(PointTimes(5, 2, clock), clock, durations) == [3, 5, 7]


def test_slot_seeds_depend_on_neither_ranks_nor_start_and_differ():
    """As many ranks as divide four slots go through the same seeds, each slot with its own."""

    def seeds(ranks):
        return {
            (step, micro_step * ranks + rank): slot_seed(7, step=step, slot=micro_step * ranks + rank)
            for step in range(3)
            for rank in range(ranks)
            for micro_step in range(4 // ranks)
        }

    assert seeds(1) == seeds(2) == seeds(4)
    assert len(set(seeds(1).values())) == 12
    assert len({slot_seed(7, step=2, slot=3, part=part) for part in range(8)}) == 8
