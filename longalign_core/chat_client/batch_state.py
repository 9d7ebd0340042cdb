"""What is known of submitted batches between runs: parts, the requests in them, and why requests failed.

The requests themselves lie in one file a part beside it, so that a reply can be stored with its
request whenever it comes. Nothing here holds a key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longalign_core.chat_client.batch_wire import Part
from longalign_core.chat_client.faults import Failure, FailureKind
from longalign_core.chat_client.local_database import LocalDatabase

PACKED, SUBMITTING, SUBMITTED, SETTLED = "packed", "submitting", "submitted", "settled"
_TABLES = """
CREATE TABLE IF NOT EXISTS parts (
    name TEXT PRIMARY KEY, model TEXT NOT NULL, stage TEXT NOT NULL, num_requests INTEGER NOT NULL,
    num_tokens INTEGER NOT NULL, newest TEXT, batch TEXT, num_downloads INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
    key TEXT PRIMARY KEY, part TEXT NOT NULL, place INTEGER NOT NULL, size INTEGER NOT NULL, ticket TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_by_part ON requests (part);
CREATE INDEX IF NOT EXISTS requests_by_ticket ON requests (ticket);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT PRIMARY KEY, num_tries INTEGER NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
    passing INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS learnt (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class PackedRequest:
    """Where a request lies in its part's file, and the ticket of the budget that it goes with."""

    key: str
    place: int
    size: int
    ticket: str | None


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """Why a request has no reply, and how often it was tried."""

    failure: Failure
    num_tries: int


class BatchState(LocalDatabase):
    """The state of one folder of batches. What a method says is on disk before it returns."""

    def __init__(self, folder: Path) -> None:
        """Open it, creating it where missing; files that no part owns are removed.

        Raises:
            StoreError: The folder or its file cannot be used.
        """
        self._folder = folder
        advice = "and do not delete it: it says what is under way"
        super().__init__(folder / "batches.sqlite", "batches", {0: _make_tables}, advice=advice)
        owned = {part.name for part in (*self.parts(PACKED), *self.parts(SUBMITTING), *self.parts(SUBMITTED))}
        for path in folder.glob("*.part*"):
            if path.name.partition(".")[0] not in owned or path.suffix != ".part":
                path.unlink(missing_ok=True)

    @property
    def tickets_file(self) -> Path:
        """Tickets of requests that are in no part yet, one a line."""
        return self._folder / "tickets"

    def file_of(self, name: str) -> Path:
        """The file with a part's requests."""
        return self._folder / f"{name}.part"

    def body_of(self, name: str) -> Path:
        """The file that is sent for a part, while it is sent."""
        return self._folder / f"{name}.part-body"

    def add_part(self, part: Part, requests: Sequence[PackedRequest]) -> None:
        """Note a part whose file is complete and on disk."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO parts VALUES (?, ?, ?, ?, ?, NULL, NULL, 0)",
                (part.name, part.model, PACKED, part.num_requests, part.num_tokens),
            )
            connection.executemany(
                "INSERT INTO requests VALUES (?, ?, ?, ?, ?)",
                ((one.key, part.name, one.place, one.size, one.ticket) for one in requests),
            )

    def intend(self, name: str, newest: str | None) -> None:
        """From here on, a part may be with the provider although its batch's id is not known."""
        with self._writing() as connection:
            connection.execute("UPDATE parts SET stage = ?, newest = ? WHERE name = ?", (SUBMITTING, newest, name))

    def submitted(self, name: str, batch: str) -> None:
        """A part's batch is known."""
        with self._writing() as connection:
            connection.execute("UPDATE parts SET stage = ?, batch = ? WHERE name = ?", (SUBMITTED, batch, name))

    def withdrawn(self, name: str) -> None:
        """The provider surely does not have a part; it waits to be submitted."""
        with self._writing() as connection:
            connection.execute("UPDATE parts SET stage = ?, batch = NULL WHERE name = ?", (PACKED, name))

    def downloaded(self, name: str) -> int:
        """Count one more download of a part's results that was not whole; how many there were."""
        with self._writing() as connection:
            connection.execute("UPDATE parts SET num_downloads = num_downloads + 1 WHERE name = ?", (name,))
            row = connection.execute("SELECT num_downloads FROM parts WHERE name = ?", (name,)).fetchone()
        return int(row[0])

    def answered(self, key: str) -> None:
        """A request's reply is stored."""
        with self._writing() as connection:
            connection.execute("DELETE FROM requests WHERE key = ?", (key,))
            connection.execute("DELETE FROM failures WHERE key = ?", (key,))

    def failed(self, key: str, failure: Failure) -> None:
        """A request came back without a reply and is under way no more."""
        with self._writing() as connection:
            connection.execute("DELETE FROM requests WHERE key = ?", (key,))
            connection.execute(
                "INSERT INTO failures VALUES (?, 1, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "num_tries = num_tries + 1, reason = excluded.reason, detail = excluded.detail, "
                "passing = excluded.passing",
                (key, failure.reason, failure.detail, failure.kind is not FailureKind.CALL),
            )

    def dissolve(self, name: str) -> None:
        """Take a part apart that no provider has: its requests are under way no more."""
        with self._writing() as connection:
            connection.execute("DELETE FROM requests WHERE part = ?", (name,))
            connection.execute("DELETE FROM parts WHERE name = ?", (name,))
        self.file_of(name).unlink(missing_ok=True)

    def settle(self, name: str) -> None:
        """Nothing of a part is under way any more. Its batch's id is kept, to know that batch by."""
        with self._writing() as connection:
            connection.execute("UPDATE parts SET stage = ? WHERE name = ?", (SETTLED, name))
        self.file_of(name).unlink(missing_ok=True)

    def parts(self, stage: str) -> list[Part]:
        """Parts at a stage."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT name, model, num_requests, num_tokens, newest, batch FROM parts WHERE stage = ?", (stage,)
            ).fetchall()
        return [
            Part(name=name, model=model, num_requests=requests, num_tokens=tokens, newest=newest, batch=batch)
            for name, model, requests, tokens, newest, batch in rows
        ]

    def known_batches(self) -> frozenset[str]:
        """Ids of all batches that are known to be some part."""
        with self._reading() as connection:
            rows = connection.execute("SELECT batch FROM parts WHERE batch IS NOT NULL").fetchall()
        return frozenset(str(batch) for (batch,) in rows)

    def requests_of(self, name: str) -> list[PackedRequest]:
        """Requests of a part that are still under way, in the order of its file."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, place, size, ticket FROM requests WHERE part = ? ORDER BY place", (name,)
            ).fetchall()
        return [PackedRequest(*row) for row in rows]

    def request_in(self, name: str, key: str) -> PackedRequest | None:
        """One request of a part; None when it is not of the part or not under way any more."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT key, place, size, ticket FROM requests WHERE part = ? AND key = ?", (name, key)
            ).fetchone()
        return PackedRequest(*row) if row else None

    def is_under_way(self, key: str) -> bool:
        """Whether a request is in some part."""
        with self._reading() as connection:
            return bool(connection.execute("SELECT 1 FROM requests WHERE key = ?", (key,)).fetchone())

    def holds_ticket(self, ticket: str) -> bool:
        """Whether some request under way has a ticket."""
        with self._reading() as connection:
            return bool(connection.execute("SELECT 1 FROM requests WHERE ticket = ?", (ticket,)).fetchone())

    def num_under_way(self) -> int:
        """Requests in all parts."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM requests").fetchone()[0])

    def failure(self, key: str) -> KnownFailure | None:
        """Why a request has no reply; None when it never failed, or was answered since."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT num_tries, reason, detail, passing FROM failures WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        num_tries, reason, detail, passing = row
        kind = FailureKind.PASSING if passing else FailureKind.CALL
        return KnownFailure(Failure(kind=kind, reason=reason, detail=detail), num_tries)

    def failures(self) -> dict[str, KnownFailure]:
        """All of them, by the request's key."""
        with self._reading() as connection:
            keys = [str(key) for (key,) in connection.execute("SELECT key FROM failures").fetchall()]
        return {key: known for key in keys if (known := self.failure(key))}

    def forget_exhausted(self, max_tries: int) -> None:
        """Requests given up in an earlier run, for reasons that pass, may be tried anew."""
        with self._writing() as connection:
            connection.execute("DELETE FROM failures WHERE passing AND num_tries >= ?", (max_tries,))

    def learnt(self, name: str) -> int | None:
        """A number that a provider told, such as a limit; None when it never did."""
        with self._reading() as connection:
            row = connection.execute("SELECT value FROM learnt WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else None

    def learn(self, name: str, value: int) -> None:
        """Keep such a number; the last one counts."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO learnt VALUES (?, ?)", (name, value))


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";"):
        connection.execute(statement)
