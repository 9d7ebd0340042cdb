"""Progress of a stage as Prefect progress artifacts and a log line now and then."""

from __future__ import annotations

import contextvars
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from longalign_core.progress import ProgressListener

SECONDS_BETWEEN_UPDATES = 5.0
SECONDS_BETWEEN_LINES = 30.0


@dataclass
class _Work:
    label: str
    total: float | None
    unit: str
    artifact: Any
    done: float = 0.0
    updated: float = 0.0
    logged: float = 0.0


class PrefectProgress(ProgressListener):
    """Shows pieces of work in the UI.

    Stages report from event loops and from other threads, where Prefect's calls would find a
    running loop or no run at all: so they are made by one thread of our own, in the task's context.
    """

    def __init__(self) -> None:
        """Set up inside a task run."""
        self._context = contextvars.copy_context()
        self._calls = ThreadPoolExecutor(1, thread_name_prefix="prefect-progress")
        self._log = get_run_logger()
        self._work: list[_Work] = []

    def begin(self, label: str, total: float | None, unit: str) -> int:
        """Add a progress bar to the run's page."""
        future = self._calls.submit(
            self._context.copy().run, create_progress_artifact, progress=0.0, description=f"{label} ({unit})"
        )
        now = time.monotonic()
        self._work.append(_Work(label, total, unit, future, updated=now, logged=now))
        return len(self._work) - 1

    def advance(self, handle: int, amount: float, note: str) -> None:
        """Move it, at most every few seconds: each move is a call to the server."""
        work = self._work[handle]
        work.done += amount
        now = time.monotonic()
        if work.total and now - work.updated > SECONDS_BETWEEN_UPDATES:
            work.updated = now
            self._update(work, min(100.0, 100.0 * work.done / work.total))
        if now - work.logged > SECONDS_BETWEEN_LINES:
            work.logged = now
            of = f" of {work.total:,.0f}" if work.total else ""
            self._log.info("%s: %s%s %s %s", work.label, f"{work.done:,.0f}", of, work.unit, note)

    def end(self, handle: int) -> None:
        """Leave it where the work ended."""
        work = self._work[handle]
        self._update(work, 100.0 if not work.total else min(100.0, 100.0 * work.done / work.total))

    def close(self) -> None:
        """Wait for the last update."""
        self._calls.shutdown(wait=True)

    def _update(self, work: _Work, percent: float) -> None:
        def update() -> None:
            try:
                update_progress_artifact(artifact_id=work.artifact.result(), progress=percent)
            except Exception as error:  # a bar that does not move must not stop the work
                logging.getLogger(__name__).debug("progress was not shown: %s", error)

        self._calls.submit(self._context.copy().run, update)
