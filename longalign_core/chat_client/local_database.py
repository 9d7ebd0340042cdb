"""One SQLite file of a machine, whose rows survive a SIGKILL and are shared by threads and processes."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from longalign_core.errors import StoreError

Self = TypeVar("Self", bound="LocalDatabase")
_BUSY_SECONDS = 60.0


class LocalDatabase:
    """A file that is opened, created or brought to the newest form.

    What a transaction wrote is with the operating system when it ends, so a SIGKILL loses none, and
    where it is durable it is on disk, so a power cut loses none either. Several threads and processes
    may use one file at the same time. It has to lie on a local disk: SQLite's write-ahead log does not
    work on network file systems.

    The file also remembers which segments of the archive it holds, so that whoever moves it away
    gets all of them back.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        steps: Mapping[int, Callable[[sqlite3.Connection], None]],
        *,
        advice: str = "or move the file away to start without it",
        durable: bool = True,
    ) -> None:
        """Open the file, creating it and its folder where missing.

        Args:
            path: Of the file.
            what: What it holds, in the plural, for errors.
            steps: By form of the file, what brings it to the next one, within one transaction. Form 0
                is an empty file, or one that is older than forms are.
            advice: What else can be done about a file that cannot be used, for errors.
            durable: Whether a transaction waits for the disk.

        Raises:
            StoreError: The file cannot be opened, is none of this kind, or has a newer form.
        """
        self._path = path
        self._what, self._advice = what, advice
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder for {path} cannot be made ({error.strerror}); change the scratch") from None
        with self._explained():
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._turn_on_write_ahead_log()
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._bring_to_newest_form(steps)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. It cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    def merged_segments(self) -> set[str]:
        """Names of the archive's segments whose rows are all here.

        Raises:
            StoreError: The file cannot be read.
        """
        with self._reading() as connection:
            return {name for (name,) in connection.execute("SELECT name FROM segments")}

    def remember_segment(self, name: str) -> None:
        """The rows of this segment are all here now.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO segments VALUES (?)", (name,))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on disk afterwards, or none of it."""
        with self._lock, self._explained():
            # Taking the right to write at once waits for other processes; upgrading to it later would not.
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _bring_to_newest_form(self, steps: Mapping[int, Callable[[sqlite3.Connection], None]]) -> None:
        newest = max(steps) + 1
        if self._form() == newest:
            return
        with self._writing() as connection:
            # Another process may have done it while this one waited for the right to write.
            if (found := self._form()) > newest:
                raise StoreError(
                    f"the stored {self._what} in {self._path} have form {found}, this version of LongAlign reads up to "
                    f"{newest}; update LongAlign, or move the file away to start without it"
                )
            connection.execute("CREATE TABLE IF NOT EXISTS segments (name TEXT PRIMARY KEY) WITHOUT ROWID")
            for form in range(found, newest):
                steps[form](connection)
            connection.execute(f"PRAGMA user_version = {newest}")

    def _form(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _turn_on_write_ahead_log(self) -> None:
        """SQLite does not wait when two processes do this to a new file at once: the second is refused, so we wait."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                is_busy = (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not is_busy or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"the stored {self._what} in {self._path} cannot be used ({error}); free disk space, mend the rights, "
                f"{self._advice}"
            ) from error
