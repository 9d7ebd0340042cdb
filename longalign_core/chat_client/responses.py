"""Answered model calls on disk, so that no answered call is ever paid twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from longalign_core.chat_client.calls import ChatReply, ChatRequest
from longalign_core.chat_client.local_database import LocalDatabase
from longalign_core.chat_client.reply_rows import (
    KEEP_NOTE,
    KEEP_REPLY,
    KEEP_TEXT,
    REPLY_COLUMNS,
    columns_of,
    make_tables,
    merging,
    note_row,
    now,
    reply_of,
    reply_row,
)
from longalign_core.chat_client.stored_calls import (
    decompressed_text,
    from_json,
    request_of_values,
    request_values,
    shared_text,
    to_bytes,
    to_json,
    to_text,
)
from longalign_core.errors import StoreError


class ResponseStore(LocalDatabase):
    """Replies by the content address of their request, and notes by name, in one SQLite file.

    A reply is on disk before `put` returns (write-ahead log, full synchronisation), so a SIGKILL
    or a power cut loses none. Several threads and processes may use one file at the same time;
    the first reply to a request stays, and so does the first note of a name. The file has to lie on
    a local disk: SQLite's write-ahead log does not work on network file systems.

    The text that requests begin with is kept once, however many do.

    Attributes:
        kind: Names its segments in the archive.
        on_new_row: Called after each reply or note that has come to wait for the archive.
    """

    kind = "replies"

    def __init__(self, path: Path, shelf: str | None = None) -> None:
        """Open the file, creating it and its folder where missing; an older form is brought to the newest.

        Args:
            path: Of the file.
            shelf: Which part of the archive the rows go to that are kept through this object. Several
                may be open on one file, each with its own; every one of them finds all replies.
                What is kept without one (also by older versions) joins the first that asks for it.

        Raises:
            StoreError: The file cannot be opened, is not such a store, or was written by a newer version.
        """
        self.on_new_row: Callable[[], None] = _nothing
        self._shelf = shelf
        super().__init__(path, "model replies", {0: make_tables})

    def __len__(self) -> int:
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM replies").fetchone()[0])

    def get(self, key: str) -> ChatReply | None:
        """The reply to the request with this key, marked as stored; None when it was never answered.

        Raises:
            StoreError: The file cannot be read.
        """
        with self._reading() as connection:
            row = connection.execute(
                f"SELECT {REPLY_COLUMNS}, shelf IS NULL FROM replies WHERE key = ?",  # noqa: S608
                (key,),
            ).fetchone()
        if row is None:
            return None
        *columns, is_without_shelf = row
        if is_without_shelf and self._shelf is not None:
            with self._writing() as connection:
                connection.execute("UPDATE replies SET shelf = ? WHERE key = ? AND shelf IS NULL", (self._shelf, key))
            self.on_new_row()
        return reply_of(columns)

    def put(self, request: ChatRequest, reply: ChatReply) -> ChatReply:
        """Keep a reply and return the one that counts: where another writer was first, that writer's.

        Raises:
            StoreError: The file cannot be written (a full disk, missing rights).
        """
        key = request.key
        text = shared_text(request)
        # Compressing takes longer than all the rest, and of a document's calls only the first needs it.
        content = None if text is None or self._has_text(text.sha256) else text.compressed()
        values = to_json(request_values(request))
        with self._writing() as connection:
            row = (key, values, text and text.sha256, *columns_of(reply), now(), self._shelf, False)
            is_new = connection.execute(KEEP_REPLY, row).rowcount == 1
            if is_new and text is not None and content is not None:
                connection.execute(KEEP_TEXT, (text.sha256, content, False))
        if is_new:
            self.on_new_row()
            return reply
        kept = self.get(key)
        assert kept is not None, "a conflicting reply vanished"
        return replace(kept, stored=False)

    def request_of(self, key: str, fetch_text: Callable[[str], bytes] | None = None) -> ChatRequest | None:
        """The whole request that was answered, its shared text included.

        Args:
            key: Of the request.
            fetch_text: Gives the compressed text with a sha256 when it is not in this file (the reply
                came from another machine); it is kept then.

        Returns:
            None when there is no such reply, or an older version kept it without its request.

        Raises:
            StoreError: The file cannot be read, the text is damaged or nowhere to be had.
        """
        with self._reading() as connection:
            row = connection.execute("SELECT request, text_sha256 FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None or row[0] is None:
            return None
        values, sha256 = row
        return request_of_values(from_json(values), "" if sha256 is None else self._text(sha256, fetch_text))

    def note(self, key: str) -> str | None:
        """The note of this name; None when there is none.

        Raises:
            StoreError: The file cannot be read.
        """
        with self._reading() as connection:
            row = connection.execute("SELECT value FROM notes WHERE key = ?", (to_bytes(key),)).fetchone()
        return None if row is None else to_text(row[0])

    def put_note(self, key: str, value: str) -> str:
        """Keep a note and return the one that counts: the first of its name stays.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._writing() as connection:
            row = (to_bytes(key), to_bytes(value), now(), self._shelf, False)
            is_new = connection.execute(KEEP_NOTE, row).rowcount == 1
        if is_new:
            self.on_new_row()
            return value
        kept = self.note(key)
        assert kept is not None, "a conflicting note vanished"
        return kept

    def unarchived(self, limit: int) -> list[tuple[int, dict[str, Any]]]:
        """Oldest rows of this shelf that no segment holds yet; the numbers of notes are negative.

        Raises:
            StoreError: The file cannot be read.
        """
        condition = "WHERE shelf IS ? AND NOT archived ORDER BY number LIMIT ?"
        with self._reading() as connection:
            notes = connection.execute(
                f"SELECT number, key, value, time FROM notes {condition}",  # noqa: S608
                (self._shelf, limit),
            ).fetchall()
            replies = connection.execute(
                f"SELECT number, key, request, text_sha256, time, {REPLY_COLUMNS} FROM replies {condition}",  # noqa: S608
                (self._shelf, limit - len(notes)),
            ).fetchall()
        return [(-number, note_row(*columns)) for number, *columns in notes] + [
            (number, reply_row(*columns)) for number, *columns in replies
        ]

    def mark_archived(self, numbers: Sequence[int]) -> None:
        """A segment holds these rows now.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._writing() as connection:
            for table, sign in (("replies", 1), ("notes", -1)):
                connection.executemany(
                    f"UPDATE {table} SET archived = 1 WHERE number = ?",  # noqa: S608
                    [(sign * number,) for number in numbers if sign * number > 0],
                )

    def merge(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take another machine's rows over, all or none; those that are here already stay as they are.

        Raises:
            StoreError: The file cannot be written, or a row has a form that is not known here.
        """
        statements = [merging(row, self._shelf) for row in rows]
        with self._writing() as connection:
            for statement, values in statements:
                connection.execute(statement, values)

    def unarchived_text(self, sha256: str) -> bytes | None:
        """A text that rows refer to, compressed; None when the archive holds it.

        Raises:
            StoreError: The file cannot be read.
        """
        with self._reading() as connection:
            row = connection.execute(
                "SELECT content FROM texts WHERE sha256 = ? AND NOT archived", (sha256,)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def mark_text_archived(self, sha256: str) -> None:
        """The archive holds this text now.

        Raises:
            StoreError: The file cannot be written.
        """
        with self._writing() as connection:
            connection.execute("UPDATE texts SET archived = 1 WHERE sha256 = ?", (sha256,))

    def _has_text(self, sha256: str) -> bool:
        with self._reading() as connection:
            return connection.execute("SELECT 1 FROM texts WHERE sha256 = ?", (sha256,)).fetchone() is not None

    def _text(self, sha256: str, fetch: Callable[[str], bytes] | None) -> str:
        with self._reading() as connection:
            row = connection.execute("SELECT content FROM texts WHERE sha256 = ?", (sha256,)).fetchone()
        if row is not None:
            return decompressed_text(bytes(row[0]), sha256, str(self._path))
        if fetch is None:
            raise StoreError(f"the text {sha256} of a stored request is not in {self._path}, and no archive was named")
        content = fetch(sha256)
        text = decompressed_text(content, sha256, "the archive")
        with self._writing() as connection:
            connection.execute(KEEP_TEXT, (sha256, content, True))
        return text


def _nothing() -> None:
    """Nobody wants to know of new rows."""
