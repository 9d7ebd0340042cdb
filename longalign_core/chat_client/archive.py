"""Keeping replies, draws and the ledger in the artifact store, so that they outlive a machine's disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class Archivable(Protocol):
    """A local file of rows that are only ever added, copied to the store in segments.

    Attributes:
        kind: Names its segments, such as "replies".
    """

    kind: str

    def unarchived(self, limit: int) -> list[tuple[int, dict[str, Any]]]:
        """Oldest rows that no segment holds yet, with their numbers, as JSON values; rows merged from one are none."""

    def mark_archived(self, numbers: Sequence[int]) -> None:
        """A segment holds these rows now."""

    def merge(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take rows of another machine's segment over; those that are here already stay as they are."""
