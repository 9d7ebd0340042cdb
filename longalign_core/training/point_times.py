"""When resume points are made, and what is random between them."""

from __future__ import annotations

import time
from collections.abc import Callable


class PointTimes:
    """After so many steps or so many minutes since the last point, whichever is first.

    Clocks differ between ranks: one rank asks, and tells the others.
    """

    def __init__(self, interval: int, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """The time to the first point begins.

        Args:
            interval: Optimizer steps between points; those it divides get one.
            minutes: Most minutes between points; None for no such limit.
            clock: Seconds.
        """
        self._interval, self._minutes, self._clock = interval, minutes, clock
        self.made()

    def due(self, done: int) -> bool:
        """Whether a point is to be made after `done` steps."""
        too_long = self._minutes is not None and self._clock() - self._last >= 60 * self._minutes
        return too_long or done % self._interval == 0

    def made(self) -> None:
        """A point is there."""
        self._last = self._clock()


def slot_seed(seed: int, *, step: int, slot: int, part: int = 0) -> int:
    """Seed of what is random in one slot of one step (dropout).

    It depends on neither the number of ranks nor on where a run was interrupted, so that a run that goes
    on, on however many data-parallel ranks, has the same random numbers. Only ranks that share a slot's
    tokens (sequence parallelism) each have their own part's, which another degree does not repeat.

    Args:
        seed: The recipe's.
        step: From 0.
        slot: Of the step, from 0.
        part: The rank's among those that share the slot.
    """
    return seed + 1_000_003 * step + slot + 7_368_787 * 1_000_003 * part
