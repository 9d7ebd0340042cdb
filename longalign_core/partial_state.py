"""Unfinished work that is worth keeping beyond this machine's disk: what a running stage may ask of the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class PartialState(Protocol):
    """Copies of one address's unfinished state, each a folder of files under a name. Names sort by age."""

    def names(self) -> list[str]:
        """Names of the whole copies, the oldest first. Raises StoreError."""

    def put(self, name: str, folder: Path, given_up: Callable[[], bool]) -> None:
        """Copy a folder's files to the store; when it is whole there, older copies are removed.

        Args:
            name: Must not be there yet.
            folder: Not changed by anyone meanwhile.
            given_up: Asked between files; true ends the copy, and nothing of it stays.

        Raises:
            StoreError: The store cannot be written.
        """

    def fetch(self, name: str, folder: Path) -> None:
        """Bring a copy's files here, each checked by size and sha256.

        Raises:
            ManifestError: One is gone or is not what it was.
            StoreError: The store cannot be read.
        """
