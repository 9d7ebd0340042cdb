"""The ranks' own logs: kept as files, told now and then as they grow, and quoted when training fails."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

LOGS_FOLDER = ".logs"
_LINES, _SECONDS = 10, 30.0
_LONGEST_LINE = 300


def start_logs(out_dir: Path) -> Path:
    """An empty folder for the ranks' logs; those of the start before are kept beside it."""
    logs = out_dir / LOGS_FOLDER
    before = out_dir / f"{LOGS_FOLDER}-before"
    if logs.is_dir() and any(logs.iterdir()):
        shutil.rmtree(before, ignore_errors=True)
        logs.rename(before)
    logs.mkdir(parents=True, exist_ok=True)
    return logs


def rank_log(logs: Path, rank: int) -> Path | None:
    """The log of a rank, as DeepSpeed's launcher names it; None where it never started."""
    return max(logs.glob(f"*_rank{rank}.log"), default=None)


def tail(file: Path, num_lines: int) -> list[str]:
    """The last lines of a log that are not empty."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 300 * num_lines))
        text = stream.read().decode("utf-8", errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-num_lines:]


class LogRelay:
    """Passes the first rank's lines on to the logger: at most a few in half a minute, for every line is a call."""

    def __init__(self, logs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._logs = logs
        self._clock = clock
        self._position = 0
        self._window, self._told, self._left_out = clock(), 0, 0

    def relay(self) -> None:
        """Tell what has been written since the last call."""
        if self._clock() - self._window >= _SECONDS:
            if self._left_out:
                log.info("rank 0: %d more lines in %s", self._left_out, self._logs)
            self._window, self._told, self._left_out = self._clock(), 0, 0
        if (file := rank_log(self._logs, 0)) is None:
            return
        with file.open("rb") as stream:
            stream.seek(self._position)
            while (line := stream.readline()).endswith(b"\n"):
                self._position = stream.tell()
                # Of a progress bar, which returns to the start of its line, the last state.
                self._tell(line.decode("utf-8", errors="replace").strip().rpartition("\r")[2])

    def _tell(self, line: str) -> None:
        if not line:
            return
        if self._told < _LINES:
            self._told += 1
            log.info("rank 0: %s", line[:_LONGEST_LINE])
        else:
            self._left_out += 1
