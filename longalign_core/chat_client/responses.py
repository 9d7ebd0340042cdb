"""Answered model calls on disk, so that no answered call is ever paid twice."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from longalign_core.chat_client.calls import ChatReply, ChatRequest
from longalign_core.errors import StoreError

_BUSY_SECONDS = 60.0
_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL, model TEXT NOT NULL,
    prompt_tokens INTEGER, reply_tokens INTEGER
) WITHOUT ROWID
"""
_NOTES = "CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"


class ResponseStore:
    """Replies by the content address of their request, in one SQLite file.

    A reply is on disk before `put` returns (write-ahead log, full synchronisation), so a SIGKILL
    or a power cut loses none. Several threads and processes may use one file at the same time;
    the first reply to a request stays. The file has to lie on a local disk: SQLite's write-ahead
    log does not work on network file systems.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, creating it and its folder where missing.

        Raises:
            StoreError: The file cannot be opened, or is not such a store.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder for {path} cannot be made ({error.strerror}); change the scratch") from None
        with self._explained():
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._turn_on_write_ahead_log()
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(_TABLE)
            self._connection.execute(_NOTES)

    def __enter__(self) -> ResponseStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        with self._lock, self._explained():
            return int(self._connection.execute("SELECT count(*) FROM replies").fetchone()[0])

    def get(self, key: str) -> ChatReply | None:
        """The reply to the request with this key, marked as stored; None when it was never answered.

        Raises:
            StoreError: The file cannot be read.
        """
        with self._lock, self._explained():
            row = self._connection.execute(
                "SELECT text, finish_reason, model, prompt_tokens, reply_tokens FROM replies WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        text, finish_reason, model, prompt_tokens, reply_tokens = row
        return ChatReply(
            text=text,
            finish_reason=finish_reason,
            model=model,
            prompt_tokens=prompt_tokens,
            reply_tokens=reply_tokens,
            stored=True,
        )

    def put(self, request: ChatRequest, reply: ChatReply) -> ChatReply:
        """Keep a reply and return the one that counts: where another writer was first, that writer's.

        Raises:
            StoreError: The file cannot be written (a full disk, missing rights).
        """
        key = request.key
        with self._lock, self._explained():
            cursor = self._connection.execute(
                "INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key, reply.text, reply.finish_reason, reply.model, reply.prompt_tokens, reply.reply_tokens),
            )
        if cursor.rowcount == 1:
            return reply
        kept = self.get(key)
        assert kept is not None, "a conflicting reply vanished"
        return replace(kept, stored=False)

    def note(self, key: str) -> str | None:
        """The note under this key; None when there is none. Raises StoreError."""
        with self._lock, self._explained():
            row = self._connection.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put_note(self, key: str, value: str) -> str:
        """Keep a note and return the one that counts: the first under its key stays. Raises StoreError."""
        with self._lock, self._explained():
            self._connection.execute("INSERT INTO notes VALUES (?, ?) ON CONFLICT DO NOTHING", (key, value))
        kept = self.note(key)
        assert kept is not None, "a note vanished"
        return kept

    def close(self) -> None:
        """Close the file. The store cannot be used afterwards."""
        with self._lock:
            self._connection.close()

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
                f"the stored model replies in {self._path} cannot be used ({error}); free disk space, "
                "mend the rights, or move the file away to start without it"
            ) from error
