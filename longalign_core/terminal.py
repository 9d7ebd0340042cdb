"""What a person at a terminal sees: live bars there, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from longalign_core.progress import ProgressListener, listening


class Bars(ProgressListener):
    """One live bar a piece of work."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, label: str, total: float | None, unit: str) -> int:
        """Add a bar."""
        return int(self._progress.add_task(label, total=total, unit=unit, note=""))

    def advance(self, handle: int, amount: float, note: str) -> None:
        """Move it."""
        fields = {"note": note} if note else {}
        self._progress.update(TaskID(handle), advance=amount, **fields)  # type: ignore[arg-type]

    def end(self, handle: int) -> None:
        """Take it away: what came of it is printed by the run."""
        self._progress.remove_task(TaskID(handle))


class _Count(ProgressColumn):
    """How much is done; the total may be unknown."""

    def render(self, task: Task) -> Text:
        """The count in the work's own unit."""
        of = f" of {task.total:,.0f}" if task.total else ""
        return Text(f"{task.completed:,.0f}{of} {task.fields['unit']}")


@dataclass
class _Work:
    label: str
    total: float | None
    unit: str
    done: float = 0
    note: str = ""
    shown: float = 0


class Lines(ProgressListener):
    """A line now and then, at most one every `every` seconds for each piece of work."""

    def __init__(self, console: Console, every: float = 10.0) -> None:
        self._console, self._every = console, every
        self._work: dict[int, _Work] = {}
        self._lock = threading.Lock()

    def begin(self, label: str, total: float | None, unit: str) -> int:
        """Remember it; short work shows no line."""
        with self._lock:
            handle = len(self._work)
            self._work[handle] = _Work(label, total, unit, shown=time.monotonic())
        return handle

    def advance(self, handle: int, amount: float, note: str) -> None:
        """Count, and show a line when one is due."""
        with self._lock:
            work = self._work[handle]
            work.done += amount
            work.note = note or work.note
            if time.monotonic() - work.shown < self._every:
                return
            work.shown = time.monotonic()
            of = f" of {work.total:,.0f}" if work.total else ""
            note = f" ({work.note})" if work.note else ""
            line = f"  … {work.label}: {work.done:,.0f}{of} {work.unit}{note}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def end(self, handle: int) -> None:
        """Nothing: the run prints what came of it."""


@contextmanager
def showing_progress(console: Console) -> Iterator[None]:
    """Show the progress of everything in the block on `console`."""
    if not console.is_terminal:
        with listening(Lines(console)):
            yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress, listening(Bars(progress)):
        yield
