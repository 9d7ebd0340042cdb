"""How far long work has come, told to whoever listens: a terminal, a log, the Prefect UI.

A stage says `with track("ingest books", total=12, unit="files") as step: step(1)`; what becomes of
it is the listener's business. Without a listener nothing is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class ProgressListener(Protocol):
    """Receives the state of a piece of work. Calls come from any thread."""

    def begin(self, label: str, total: float | None, unit: str) -> int:
        """Start showing a piece of work; returns its handle."""

    def advance(self, handle: int, amount: float, note: str) -> None:
        """Some of it is done. `note` replaces the previous note unless empty."""

    def end(self, handle: int) -> None:
        """It is over, or was given up."""


class Silent:
    """Shows nothing."""

    def begin(self, label: str, total: float | None, unit: str) -> int:
        """Ignore."""
        return 0

    def advance(self, handle: int, amount: float, note: str) -> None:
        """Ignore."""

    def end(self, handle: int) -> None:
        """Ignore."""


_listener: ContextVar[ProgressListener] = ContextVar("progress_listener", default=Silent())  # noqa: B039


@contextmanager
def listening(listener: ProgressListener) -> Iterator[None]:
    """Send the progress of everything in the block to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def track(label: str, *, total: float | None, unit: str) -> Iterator[Callable[..., None]]:
    """Report a piece of work as it proceeds.

    Args:
        label: What is being done, a few words.
        total: How much there is in `unit`; None when not known.
        unit: Plural noun of what is counted.

    Yields:
        `step(amount=1, note="")`, to call as work gets done, from any thread.
    """
    listener = _listener.get()
    handle = listener.begin(label, total, unit)

    def step(amount: float = 1, note: str = "") -> None:
        listener.advance(handle, amount, note)

    try:
        yield step
    finally:
        listener.end(handle)
