"""The tables of the response store, and its rows as the archive keeps them: JSON values."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from longalign_core.chat_client.calls import ChatReply
from longalign_core.chat_client.stored_calls import from_json, to_bytes, to_json, to_text
from longalign_core.errors import StoreError

REPLY_FIELDS = tuple(field.name for field in fields(ChatReply) if field.name != "stored")
"""What is kept of a reply, in the order of its columns."""
# `request` is NULL where the reply was kept by a version that did not keep requests; `text_sha256`
# where the request shares no text. `shelf` is NULL until it is known: see `ResponseStore`.
TABLES = (
    """CREATE TABLE replies (
        number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, request BLOB, text_sha256 TEXT,
        text BLOB NOT NULL, finish_reason BLOB NOT NULL, model BLOB NOT NULL,
        prompt_tokens INTEGER, reply_tokens INTEGER, cached_tokens INTEGER, cache_write_tokens INTEGER,
        batch INTEGER NOT NULL, time TEXT, shelf TEXT, archived INTEGER NOT NULL
    )""",
    "CREATE INDEX unarchived_replies ON replies (shelf, number) WHERE NOT archived",
    "CREATE TABLE texts (sha256 TEXT PRIMARY KEY, content BLOB NOT NULL, archived INTEGER NOT NULL)",
    """CREATE TABLE notes (
        number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL, time TEXT, shelf TEXT,
        archived INTEGER NOT NULL
    )""",
    "CREATE INDEX unarchived_notes ON notes (shelf, number) WHERE NOT archived",
)
_OLD_COLUMNS = ["key", "text", "finish_reason", "model", "prompt_tokens", "reply_tokens"]
REPLY_COLUMNS = ", ".join(REPLY_FIELDS)
KEEP_REPLY = (
    f"INSERT INTO replies (key, request, text_sha256, {REPLY_COLUMNS}, time, shelf, archived) "  # noqa: S608
    f"VALUES ({', '.join('?' * (len(REPLY_FIELDS) + 6))}) ON CONFLICT DO NOTHING"
)
KEEP_NOTE = "INSERT INTO notes (key, value, time, shelf, archived) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
KEEP_TEXT = "INSERT OR IGNORE INTO texts VALUES (?, ?, ?)"


def make_tables(connection: sqlite3.Connection) -> None:
    """Form 0 to 1; the replies of the form that had six columns and no request are taken over."""
    found = [column for _, column, *_ in connection.execute("PRAGMA table_info(replies)")]
    if found and found != _OLD_COLUMNS:
        raise sqlite3.DatabaseError("it holds a table of another kind")
    if found:
        connection.execute("ALTER TABLE replies RENAME TO old_replies")
    for statement in TABLES:
        connection.execute(statement)
    if found:
        connection.execute(
            "INSERT INTO replies (key, text, finish_reason, model, prompt_tokens, reply_tokens, batch, archived) "
            "SELECT key, CAST(text AS BLOB), CAST(finish_reason AS BLOB), CAST(model AS BLOB), prompt_tokens, "
            "reply_tokens, 0, 0 FROM old_replies"
        )
        connection.execute("DROP TABLE old_replies")


def columns_of(reply: ChatReply) -> list[object]:
    """The columns of a reply, in the order of `REPLY_FIELDS`."""
    values = [getattr(reply, name) for name in REPLY_FIELDS]
    return [to_bytes(value) if isinstance(value, str) else value for value in values]


def reply_of(columns: Sequence[Any]) -> ChatReply:
    """The reply with these columns, marked as stored."""
    values = [to_text(value) if isinstance(value, bytes) else value for value in columns]
    named: dict[str, Any] = dict(zip(REPLY_FIELDS, values, strict=True))
    return ChatReply(**{**named, "batch": bool(named["batch"])}, stored=True)


def now() -> str:
    """When a row is kept: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def note_row(key: bytes, value: bytes, time: str) -> dict[str, Any]:
    """A note as the archive keeps it."""
    return {"row": "note", "key": to_text(key), "value": to_text(value), "time": time}


def reply_row(key: str, request: bytes | None, text: str | None, time: str | None, *columns: Any) -> dict[str, Any]:
    """A reply as the archive keeps it; `text` is the sha256 of what its request begins with."""
    reply = reply_of(columns)
    return {
        "row": "reply",
        "key": key,
        "request": None if request is None else from_json(request),
        "text": text,
        "reply": {name: getattr(reply, name) for name in REPLY_FIELDS},
        "time": time,
    }


def merging(row: dict[str, Any], shelf: str | None) -> tuple[str, tuple[object, ...]]:
    """The statement, with its values, that takes a row of the archive over.

    Raises:
        StoreError: The row has a form that is not known here.
    """
    try:
        if row["row"] == "note":
            return KEEP_NOTE, (to_bytes(row["key"]), to_bytes(row["value"]), row["time"], shelf, True)
        if row["row"] == "reply":
            request = None if row["request"] is None else to_json(row["request"])
            columns = columns_of(ChatReply(**row["reply"], stored=True))
            return KEEP_REPLY, (row["key"], request, row["text"], *columns, row["time"], shelf, True)
        unknown = f"row {row['row']!r}"
    except (KeyError, TypeError, AttributeError) as error:
        unknown = str(error)
    raise StoreError(f"archived model replies have a form that is not known here ({unknown}); update LongAlign")
