"""What every paid call cost, on disk: a row is written before the call is sent and settled when its reply came.

So a run that is killed at any moment leaves rows that say "sent". Nobody knows whether they were charged; they
count as spent, at what they may have cost at most, until somebody settles them.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from longalign_core.chat_client.local_database import LocalDatabase
from longalign_core.chat_client.tickets import Grouping, Spent, State, Ticket

_COLUMNS = tuple(field.name for field in fields(Ticket))
_NUMBERS = {
    "batch",
    "prompt_bytes",
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reply_tokens",
    "estimated",
}
_KINDS = dict.fromkeys(_COLUMNS, "TEXT NOT NULL") | dict.fromkeys(_NUMBERS, "INTEGER NOT NULL") | {"dollars": "REAL"}
_TABLE = f"""
CREATE TABLE IF NOT EXISTS tickets (
    number INTEGER PRIMARY KEY, {", ".join(f"{name} {kind}" for name, kind in _KINDS.items())},
    archived INTEGER NOT NULL DEFAULT 0, UNIQUE (id)
)
"""
_SUMS = """
    count(*), total(state IN ('sent', 'abandoned-paid-unknown')), total(estimated), total(dollars IS NULL),
    total(prompt_tokens), total(cached_tokens), total(cache_write_tokens), total(reply_tokens), total(dollars)
"""
# Only names of our own columns are put into statements; values never are.
_INSERT = f"INSERT INTO tickets ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_SELECT = f"SELECT number, {', '.join(_COLUMNS)} FROM tickets"  # noqa: S608


# Tickets of calls that this process has under way, through whichever ledger it opened.
_under_way: set[str] = set()


class Ledger(LocalDatabase):
    """Tickets in one SQLite file, for several threads and processes at the same time.

    A row is with the operating system before a method returns, so a SIGKILL loses none; it is not forced to the
    disk (that would cost milliseconds a call), so a power cut may lose the last seconds. The file has to lie on a
    local disk.

    Attributes:
        kind: Names its segments in the artifact store.
    """

    kind = "ledger"

    def __init__(self, path: Path) -> None:
        """Open the file, creating it and its folder where missing.

        Raises:
            StoreError: The file cannot be opened, or is not such a ledger.
        """
        advice = "and do not delete it: without it nobody knows what was spent"
        super().__init__(path, "tickets of model calls", {0: _make_tables}, advice=advice, durable=False)

    def open_ticket(
        self,
        *,
        product: str,
        role: str,
        model: str,
        purpose: str,
        task_type: str,
        corpus: str,
        batch: bool,
        prompt_bytes: int,
        prompt_tokens: int,
        reply_tokens: int,
        dollars: float | None,
        price_date: str,
        ticket: str | None = None,
    ) -> str:
        """Write that a call is about to be sent, with its upper estimates; returns its id, a new one unless given."""
        row = Ticket(
            id=ticket or uuid.uuid4().hex,
            product=product,
            role=role,
            model=model,
            purpose=purpose,
            task_type=task_type,
            corpus=corpus,
            batch=batch,
            state="sent",
            prompt_bytes=prompt_bytes,
            prompt_tokens=prompt_tokens,
            cached_tokens=0,
            cache_write_tokens=0,
            reply_tokens=reply_tokens,
            estimated=True,
            dollars=dollars,
            price_date=price_date,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._execute(_INSERT, [getattr(row, name) for name in _COLUMNS])
        _under_way.add(row.id)
        return row.id

    def find(self, ticket: str) -> Ticket | None:
        """The row of a ticket; None when there is none."""
        rows = self._execute(f"{_SELECT} WHERE id = ?", (ticket,))
        return _ticket(rows[0][1:]) if rows else None

    def sent(self, product: str, *, batch: bool) -> list[Ticket]:
        """Tickets of a product that wait for their reply, oldest first."""
        query = f"{_SELECT} WHERE product = ? AND state = 'sent' AND batch = ? ORDER BY number"
        return [_ticket(row[1:]) for row in self._execute(query, (product, batch))]

    def answer(
        self,
        ticket: str,
        *,
        prompt_tokens: int,
        cached_tokens: int,
        cache_write_tokens: int,
        reply_tokens: int,
        estimated: bool,
        dollars: float | None,
        price_date: str,
    ) -> None:
        """Settle a ticket with what its reply used. One that is settled already stays as it is."""
        self._execute(
            "UPDATE tickets SET state = 'answered', prompt_tokens = ?, cached_tokens = ?, cache_write_tokens = ?, "
            "reply_tokens = ?, estimated = ?, dollars = ?, price_date = ? WHERE id = ? AND state = 'sent'",
            (prompt_tokens, cached_tokens, cache_write_tokens, reply_tokens, estimated, dollars, price_date, ticket),
        )
        _under_way.discard(ticket)

    def abandon(self, ticket: str, *, paid_unknown: bool) -> None:
        """Settle a ticket that got no reply. One that is settled already stays as it is."""
        state: State = "abandoned-paid-unknown" if paid_unknown else "abandoned"
        self._execute("UPDATE tickets SET state = ? WHERE id = ? AND state = 'sent'", (state, ticket))
        _under_way.discard(ticket)

    def close_killed(self, product: str) -> int:
        """Give up the calls of a product that a killed run left under way; they may have been charged.

        Only for whoever alone works at the product. Calls in batches are not given up: they go on at the provider;
        nor are calls that this process has under way.

        Returns:
            How many there were.
        """
        killed = [one.id for one in self.sent(product, batch=False) if one.id not in _under_way]
        for ticket in killed:
            self.abandon(ticket, paid_unknown=True)
        return len(killed)

    def spent(self, product: str | None = None) -> Spent:
        """The sum over one product, or over all."""
        return next(iter(self.sums((), product).values()), Spent())

    def sums(self, by: Sequence[Grouping], product: str | None = None) -> dict[tuple[str, ...], Spent]:
        """Sums by one or several groupings, keys in their order, sorted.

        Args:
            by: What to group by; nothing gives at most one sum, under the empty key.
            product: Only of this product; None for all.
        """
        names = ["substr(product, 1, instr(product || '/', '/') - 1)" if name == "stage" else name for name in by]
        query = f"SELECT {', '.join([*names, _SUMS])} FROM tickets WHERE state != 'abandoned'"  # noqa: S608
        query += "" if product is None else " AND product = ?"
        query += f" GROUP BY {', '.join(names)} ORDER BY {', '.join(names)}" if names else ""
        rows = self._execute(query, () if product is None else (product,))
        return {tuple(row[: len(by)]): _spent(row[len(by) :]) for row in rows if row[len(by)]}

    def tokens_per_byte(self, model: str, corpus: str, min_bytes: int) -> tuple[int, float]:
        """Of how many prompts of `min_bytes` or more the provider counted the tokens, and the most tokens a byte."""
        query = (
            "SELECT count(*), coalesce(max(prompt_tokens * 1.0 / prompt_bytes), 0) FROM tickets "
            "WHERE model = ? AND corpus = ? AND state = 'answered' AND NOT estimated AND prompt_bytes >= ?"
        )
        num_calls, most = self._execute(query, (model, corpus, min_bytes))[0]
        return int(num_calls), float(most)

    def unarchived(self, limit: int) -> list[tuple[int, dict[str, Any]]]:
        """Oldest settled tickets that no segment holds yet."""
        rows = self._execute(f"{_SELECT} WHERE archived = 0 AND state != 'sent' ORDER BY number LIMIT ?", (limit,))
        return [(row[0], dict(zip(_COLUMNS, row[1:], strict=True))) for row in rows]

    def mark_archived(self, numbers: Sequence[int]) -> None:
        """A segment holds these rows now."""
        with self._writing() as connection:
            connection.executemany("UPDATE tickets SET archived = 1 WHERE number = ?", [(n,) for n in numbers])

    def merge(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take settled tickets of another machine over; those that are here already stay as they are."""
        values = [[row[name] for name in _COLUMNS] for row in rows]
        with self._writing() as connection:
            connection.executemany(
                f"{_INSERT.replace('(id,', '(archived, id,', 1).replace('VALUES (', 'VALUES (1, ', 1)} "
                "ON CONFLICT (id) DO NOTHING",
                values,
            )

    def _execute(self, query: str, values: Sequence[Any]) -> list[Any]:
        with self._reading() as connection:
            return connection.execute(query, values).fetchall()


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute(_TABLE)
    connection.execute("CREATE INDEX IF NOT EXISTS by_product ON tickets (product, state)")
    connection.execute("CREATE INDEX IF NOT EXISTS to_archive ON tickets (number) WHERE archived = 0")


def _ticket(row: Sequence[Any]) -> Ticket:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Ticket(**values | {"batch": bool(values["batch"]), "estimated": bool(values["estimated"])})


def _spent(row: Sequence[Any]) -> Spent:
    *whole, dollars = row
    names = [field.name for field in fields(Spent)]
    return Spent(**dict(zip(names, map(int, whole), strict=False)), dollars=dollars)
