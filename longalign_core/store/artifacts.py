"""Artifacts in the store: commit, find, fetch, verify, collect."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from longalign_core.errors import ManifestError, MissingArtifactError, StoreError
from longalign_core.store.files import Files, open_files
from longalign_core.store.lease import lease
from longalign_core.store.manifest import (
    SCHEMA,
    FileEntry,
    Manifest,
    entry_of,
    manifest_name,
    matches,
    parse_manifest,
)
from longalign_core.store.partial import StoredState, unneeded_copies

log = logging.getLogger(__name__)


class Store:
    """Every product of every stage, each under `{stage}/{key}`.

    An artifact exists when its manifest does. The manifest is created last, and only if there is
    none, so a reader never sees half an artifact and two writers never mix theirs.
    """

    def __init__(self, url: str, fetched: Path) -> None:
        """Open a store; nothing is contacted yet.

        Args:
            url: A folder, or `s3://bucket/prefix`.
            fetched: Local folder for files brought from a remote store.

        Raises:
            InputError: The URL is neither.
        """
        self.files: Files = open_files(url)
        self._fetched = fetched

    @property
    def url(self) -> str:
        """Where the store lies, without any secret."""
        return self.files.url

    def check(self) -> None:
        """Make sure that the store can be written and honours create-if-absent.

        Raises:
            StoreError: It cannot, or does not.
        """
        probe = f"_probe/{secrets.token_hex(8)}"
        self._create(probe, b"probe")
        try:
            self.files.create(probe, b"again")
        except FileExistsError:
            return
        finally:
            self.files.delete(probe)
        raise StoreError(
            f"the store {self.url} overwrites objects that must be created only if absent; "
            "use an endpoint that honours conditional writes (If-None-Match)"
        )

    def find(self, address: str) -> Manifest | None:
        """The manifest at an address, or None while there is no such artifact.

        Raises:
            ManifestError: The manifest is damaged, of a newer schema, or of another address.
        """
        name = manifest_name(address)
        try:
            data, _ = self.files.read(name)
        except FileNotFoundError:
            return None
        manifest = parse_manifest(data, f"{self.url}/{name}")
        if manifest.address != address:
            raise ManifestError(
                f"the manifest at {address} calls itself {manifest.address}; delete {self.url}/{name} "
                "to make the artifact anew"
            )
        return manifest

    def require(self, address: str) -> Manifest:
        """The manifest at an address that must be there.

        Raises:
            MissingArtifactError: It is not.
        """
        if manifest := self.find(address):
            return manifest
        raise MissingArtifactError(f"no artifact {address} in the store {self.url}; run the stage that makes it first")

    def check_files(self, manifest: Manifest) -> None:
        """Make sure that every file of an artifact is there with its size, without reading them.

        Raises:
            ManifestError: One is gone or has another size.
        """
        sizes = self.files.sizes(manifest.folder)
        for entry in manifest.files:
            if (found := sizes.get(f"{manifest.folder}/{entry.path}")) != entry.size:
                state = "is gone" if found is None else f"has {found} bytes instead of {entry.size}"
                raise ManifestError(
                    f"{entry.path} of {manifest.address} {state} in the store {self.url}; bring it back, "
                    f"or delete {manifest_name(manifest.address)} there to make the artifact anew"
                )

    def fetch(self, manifest: Manifest) -> Path:
        """A local folder with the artifact's files, each checked by size and sha256.

        Raises:
            ManifestError: A file is gone or is not what the manifest says.
        """
        folder = self._fetched / manifest.folder
        for entry in manifest.files:
            place = self._fetch_entry(manifest, entry)
            folder = Path(str(place).removesuffix(entry.path))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def fetch_file(self, manifest: Manifest, name: str) -> Path | None:
        """One file of an artifact, checked as in `fetch`; None where the artifact has no such file.

        Raises:
            ManifestError: The file is gone or is not what the manifest says.
        """
        entry = next((one for one in manifest.files if one.path == name), None)
        return None if entry is None else self._fetch_entry(manifest, entry)

    def _fetch_entry(self, manifest: Manifest, entry: FileEntry) -> Path:
        place = self._fetched / manifest.folder / entry.path
        if place.is_file() and matches(place, entry):
            return place
        try:
            place = self.files.download(f"{manifest.folder}/{entry.path}", place)
        except FileNotFoundError:
            self.check_files(manifest)
            raise
        if not matches(place, entry):
            raise ManifestError(
                f"{entry.path} of {manifest.address} is not what its manifest says (size or sha256); "
                f"delete {manifest_name(manifest.address)} in {self.url} to make the artifact anew"
            )
        return place

    def commit(
        self,
        folder: Path,
        identity: dict[str, Any],
        key: str,
        *,
        label: str,
        counts: dict[str, int | float | str],
        runtime: dict[str, Any],
        provenance: dict[str, Any],
    ) -> Manifest:
        """Upload a folder and create its manifest; whoever loses a race gives its attempt up.

        Names that begin with a dot are left out.

        Returns:
            The manifest in force: this attempt's, or the winner's.

        Raises:
            StoreError: The store cannot be written; the attempt was removed and nothing looks done.
        """
        names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
        manifest = Manifest(
            schema_version=SCHEMA,
            stage=identity["stage"],
            version=identity["version"],
            key=key,
            label=label,
            attempt=secrets.token_hex(8),
            config=identity["config"],
            inputs=identity["inputs"],
            files=tuple(entry_of(folder, name) for name in names),
            counts=counts,
            runtime=runtime,
            provenance=provenance,
        )
        try:
            for entry in manifest.files:
                self.files.upload(folder / entry.path, f"{manifest.folder}/{entry.path}")
            self.files.create(manifest_name(manifest.address), manifest.to_bytes())
        except BaseException as error:
            # The manifest may be ours all the same: a reply was lost and the write repeated, or we were
            # stopped just after it. Then the files stay; when nothing can be said, `gc` looks later.
            with suppress(StoreError):
                if self._in_force(manifest):
                    if isinstance(error, Exception):
                        return manifest
                    raise
                self.files.delete(manifest.folder)
            if isinstance(error, FileExistsError):
                log.info("%s was committed by another process; its product is used", manifest.address)
                return self.require(manifest.address)
            if isinstance(error, FileNotFoundError):
                raise StoreError(f"the store {self.url} is not there ({error}); create it or name another") from error
            raise
        return manifest

    def collect_garbage(self, *, delete: bool) -> Iterator[str]:
        """Find attempts that no manifest names, and copies of resume state that nothing will go on from.

        Addresses that are worked at are left alone.

        Args:
            delete: Whether to delete them, too.

        Yields:
            Each one's folder in the store.
        """
        for stage in self._stages():
            for key in self.files.folders(stage):
                address = f"{stage}/{key}"
                attempts = self.files.folders(address)
                if not attempts or self.files.sizes(f"_leases/{stage}").get(f"_leases/{address}.json"):
                    continue
                manifest = self.find(address)
                for attempt in attempts:
                    if manifest is None or attempt != manifest.attempt:
                        if delete:
                            self.files.delete(f"{address}/{attempt}")
                        yield f"{address}/{attempt}"
        for copy in unneeded_copies(self.files, lambda address: self.find(address) is not None):
            if delete:
                self.files.delete(copy)
            yield copy

    def partial(self, address: str) -> StoredState:
        """Copies of what is unfinished at an address; whoever writes them holds its lease."""
        return StoredState(self.files, address)

    def _in_force(self, manifest: Manifest) -> bool:
        found = self.find(manifest.address)
        return found is not None and found.attempt == manifest.attempt

    def _stages(self) -> list[str]:
        return [name for name in self.files.folders("") if not name.startswith("_") and name != "refs"]

    def lease(self, address: str, give_up: Callable[[], bool]) -> AbstractContextManager[bool]:
        """Hold the right to work at an address; see `lease.lease`."""
        return lease(self.files, address, give_up=give_up)

    def addresses(self, stage: str | None = None) -> Iterator[str]:
        """Every address with a manifest, by stage and key."""
        for name in [stage] if stage else self._stages():
            for key in self.files.folders(name):
                if self.find(f"{name}/{key}"):
                    yield f"{name}/{key}"

    def read_ref(self, name: str) -> tuple[str, str] | None:
        """What a ref points at and its version; None when there is no such ref."""
        try:
            data, version = self.files.read(f"refs/{name}.json")
        except FileNotFoundError:
            return None
        return data.decode(), version

    def move_ref(self, name: str, value: str, version: str | None) -> None:
        """Point a ref elsewhere by compare-and-swap.

        Args:
            name: The ref.
            value: What it shall hold.
            version: As `read_ref` gave it; None to create a ref that must not exist yet.

        Raises:
            FileExistsError: It was moved in the meantime.
        """
        if version is None:
            self.files.create(f"refs/{name}.json", value.encode())
        else:
            self.files.replace(f"refs/{name}.json", value.encode(), version)

    def _create(self, name: str, data: bytes) -> None:
        try:
            self.files.create(name, data)
        except FileNotFoundError as error:
            raise StoreError(f"the store {self.url} is not there ({error}); create it or name another") from error
