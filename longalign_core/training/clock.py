"""Seconds that a rank spends on its own packs, without those it waits for others.

On the CPU, the time that the thread itself was running: a thread that waits for a message does not
run. On a GPU, CUDA events; there gradients are reduced while the backward pass runs, so that waiting
shows in it, but the forward pass is the rank's own as long as it needs nothing from others.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch


class Clock(Protocol):
    """Times the micro-steps of one optimizer step."""

    def start(self) -> None:
        """A forward pass begins."""

    def turn(self) -> None:
        """The forward pass is over, the backward pass begins."""

    def stop(self) -> None:
        """The backward pass is over."""

    def take(self) -> tuple[list[float], list[float]]:
        """Seconds of every micro-step since the last call: of a part without waiting, and of the whole."""


class ThreadClock:
    """Counts the time this thread was running."""

    def __init__(self) -> None:
        self._started = 0.0
        self._seconds: list[float] = []

    def start(self) -> None:
        """See `Clock`."""
        self._started = time.thread_time()

    def turn(self) -> None:
        """See `Clock`."""

    def stop(self) -> None:
        """See `Clock`."""
        self._seconds.append(time.thread_time() - self._started)

    def take(self) -> tuple[list[float], list[float]]:
        """See `Clock`."""
        seconds, self._seconds = self._seconds, []
        return seconds, seconds


class CudaClock:
    """Marks the stream, and looks at the marks only when asked: nothing is waited for meanwhile."""

    def __init__(self) -> None:
        self._marks: list[torch.cuda.Event] = []

    def start(self) -> None:
        """See `Clock`."""
        self._mark()

    def turn(self) -> None:
        """See `Clock`."""
        self._mark()

    def stop(self) -> None:
        """See `Clock`."""
        self._mark()

    def take(self) -> tuple[list[float], list[float]]:
        """See `Clock`."""
        marks, self._marks = self._marks, []
        if marks:
            marks[-1].synchronize()
        triples = list(zip(marks[::3], marks[1::3], marks[2::3], strict=True))
        forward = [start.elapsed_time(turn) / 1000 for start, turn, _ in triples]
        whole = [start.elapsed_time(stop) / 1000 for start, _, stop in triples]
        return forward, whole

    def _mark(self) -> None:
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        self._marks.append(mark)


def clock_of(device: torch.device) -> Clock:
    """The clock of a device."""
    return CudaClock() if device.type == "cuda" else ThreadClock()
