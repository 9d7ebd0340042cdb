"""Copies of unfinished work, under `_partial/{stage}/{key}/{name}/`.

A copy is whole when its list is there, which is created last and holds the digest of every file.
Whoever writes holds the lease on the address.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import override

from longalign_core.errors import ManifestError
from longalign_core.partial_state import PartialState
from longalign_core.store.files import Files
from longalign_core.store.manifest import FileEntry, entry_of, matches

ROOT = "_partial"
_LIST = "list.json"


class _List(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[FileEntry, ...]


class StoredState(PartialState):
    """The copies of one address."""

    def __init__(self, files: Files, address: str) -> None:
        self._files = files
        self._folder = f"{ROOT}/{address}"
        self._seen = False

    @override
    def names(self) -> list[str]:
        names = self._files.folders(self._folder)
        self._seen = self._seen or bool(names)
        sizes = self._files.sizes(self._folder) if names else {}
        return [name for name in names if f"{self._folder}/{name}/{_LIST}" in sizes]

    @override
    def put(self, name: str, folder: Path, given_up: Callable[[], bool]) -> None:
        self._seen = True
        paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
        listed = []
        for path in paths:
            if given_up():
                self._files.delete(f"{self._folder}/{name}")
                return
            listed.append(entry_of(folder, path))
            self._files.upload(folder / path, f"{self._folder}/{name}/{path.as_posix()}")
        self._files.create(f"{self._folder}/{name}/{_LIST}", _List(files=tuple(listed)).model_dump_json().encode())
        for other in self._files.folders(self._folder):
            if other != name:
                self._remove(other)

    @override
    def fetch(self, name: str, folder: Path) -> None:
        try:
            data, _ = self._files.read(f"{self._folder}/{name}/{_LIST}")
            listed = _List.model_validate_json(data)
        except (ValidationError, FileNotFoundError) as error:
            raise self._damaged(name, _LIST) from error
        for entry in listed.files:
            path = PurePosixPath(entry.path)
            if path.is_absolute() or ".." in path.parts:
                raise self._damaged(name, entry.path)
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                place = self._files.download(f"{self._folder}/{name}/{entry.path}", target)
            except FileNotFoundError as error:
                raise self._damaged(name, entry.path) from error
            if place != target:
                # No link: what goes on from it may append to it.
                shutil.copyfile(place, target)
            if not matches(target, entry):
                raise self._damaged(name, entry.path)

    def clear(self) -> None:
        """Remove all copies, once the artifact is there. Asks nothing of the store where none was seen."""
        if self._seen:
            self._files.delete(self._folder)

    def _remove(self, name: str) -> None:
        # The list goes first, so that a copy half removed is never taken.
        self._files.delete(f"{self._folder}/{name}/{_LIST}")
        self._files.delete(f"{self._folder}/{name}")

    def _damaged(self, name: str, path: str) -> ManifestError:
        return ManifestError(
            f"{path} of the copied resume state {self._folder}/{name} in the store {self._files.url} is gone or is not "
            "what was copied (size or sha256); bring it back, or delete the folder to go on without it"
        )


def unneeded_copies(files: Files, is_done: Callable[[str], bool]) -> Iterator[str]:
    """Folders of copies that nothing will go on from: of artifacts that are there, and of uploads that ended half-way.

    Those of unfinished work stay; addresses that are worked at are left alone.
    """
    for stage in files.folders(ROOT):
        leases = files.sizes(f"_leases/{stage}")
        for key in files.folders(f"{ROOT}/{stage}"):
            address = f"{stage}/{key}"
            if f"_leases/{address}.json" in leases:
                continue
            if is_done(address):
                yield f"{ROOT}/{address}"
                continue
            whole = StoredState(files, address).names()
            yield from (f"{ROOT}/{address}/{name}" for name in files.folders(f"{ROOT}/{address}") if name not in whole)
