"""Sources: data outside the store, named in a recipe by a path or as `hub:org/name@revision`.

A source enters an address by what it holds, never by where it lies: files by (relative path, size,
sha256), hub repositories by their 40-hex revision.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError, MissingArtifactError, StoreError
from longalign_core.source_files import BYTE_CODE, SourceFile, is_url
from longalign_core.source_files import list_files as list_source_files
from longalign_core.store import Store
from longalign_core.store.manifest import file_sha256

HUB = "hub:"
_SECONDS_BETWEEN_SAVES = 1.0
_HUB_ID = re.compile(r"hub:(?P<set>datasets/)?(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[0-9a-f]{40}))?")


class UnpinnedSourceError(MissingArtifactError):
    """A hub id whose revision is neither in the recipe nor locked in the store yet."""


class Sources:
    """Fingerprints of sources, each taken once a run; hub revisions are locked in the store."""

    def __init__(self, store: Store, runtime: Runtime, *, resolve_hub: bool) -> None:
        """Set up.

        Args:
            store: Holds the locks of hub revisions, as refs.
            runtime: Its scratch folder keeps the digests of files already read.
            resolve_hub: Ask the hub for the revision of an unpinned id and lock it; else such an
                id has no fingerprint.
        """
        self._store = store
        self._digests = runtime.scratch / "digests.sqlite"
        self._resolve_hub = resolve_hub
        self._known: dict[str, str] = {}

    def fingerprint(self, source: str) -> str:
        """What stands for the source's content in an address.

        Raises:
            InputError: The path is not there, or a hub id is malformed.
            UnpinnedSourceError: The revision of a hub id is not known.
        """
        if source not in self._known:
            if source.startswith(HUB):
                self._known[source] = self._hub_revision(source)
            elif is_url(source) and not source.startswith("file://"):
                self._known[source] = _remote_digest(source)
            else:
                self._known[source] = self._files_digest(Path(source.removeprefix("file://")))
        return self._known[source]

    def _files_digest(self, path: Path) -> str:
        if not path.exists():
            raise InputError(f"{path} does not exist; correct the path in the recipe, or put the data there")
        listing: list[list[str | int | None]] = []
        self._digests.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self._digests, timeout=60, isolation_level=None)) as known:
                known.execute("CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT)")
                with closing(_DigestCache(known)) as cache:
                    for file, name in list_files(path):
                        is_file = file.is_file()
                        listing.append(
                            [name, file.stat().st_size if is_file else None, cache.digest(file) if is_file else None]
                        )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"cannot take the digests of {path}: {error}; check its rights, and space and rights of the scratch "
                f"folder {self._digests.parent}"
            ) from error
        if all(size is None for _, size, _ in listing):
            raise InputError(f"{path} holds no files; correct the path in the recipe, or put the data there")
        return hashlib.sha256(orjson.dumps(listing)).hexdigest()

    def _hub_revision(self, source: str) -> str:
        match = parse_hub_id(source)
        if match["revision"]:
            return match["revision"]
        ref = f"hub/{(match['set'] or '')}{match['id']}".replace("/", "--")
        if locked := self._store.read_ref(ref):
            return str(json.loads(locked[0])["revision"])
        if not self._resolve_hub:
            raise UnpinnedSourceError(f"the revision of {source} (unpinned; resolved and locked at first use)")
        from huggingface_hub import HfApi

        kind = "dataset" if match["set"] else "model"
        try:
            revision = HfApi().repo_info(str(match["id"]), repo_type=kind).sha
        except Exception as error:
            raise InputError(
                f"the hub does not answer for {source} ({type(error).__name__}); check the id and the network, "
                f"or name a local copy of it"
            ) from error
        try:
            self._store.move_ref(ref, json.dumps({"revision": revision}), None)
        except FileExistsError:  # another run was first: its revision counts
            locked = self._store.read_ref(ref)
            assert locked is not None
            revision = json.loads(locked[0])["revision"]
        return str(revision)


def _remote_digest(url: str) -> str:
    """Of names, sizes and what the place says of each file's content; where it says nothing, the file is read."""
    listing = [
        [file.relative_path, file.size, file.checksum or _content_sha256(file)] for file in list_source_files(url).files
    ]
    return hashlib.sha256(orjson.dumps(listing)).hexdigest()


def _content_sha256(file: SourceFile) -> str:
    with file.open() as stream:
        digest = hashlib.sha256()
        while data := stream.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


class _DigestCache:
    """Digests of files already read. They are saved about once a second and at the end.

    So hashing a terabyte can be stopped and gone on with, and a million small files do not wait for
    the disk each.
    """

    def __init__(self, known: sqlite3.Connection) -> None:
        self._known = known
        self._unsaved: list[tuple[str, str, str]] = []
        self._saved_at = time.monotonic()

    def digest(self, file: Path) -> str:
        stat = file.stat()
        stamp = f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"
        row = self._known.execute("SELECT stamp, sha256 FROM digests WHERE path = ?", (str(file),)).fetchone()
        if row and row[0] == stamp:
            return str(row[1])
        digest = file_sha256(file)
        self._unsaved.append((str(file), stamp, digest))
        if time.monotonic() - self._saved_at > _SECONDS_BETWEEN_SAVES:
            self.close()
        return digest

    def close(self) -> None:
        if self._unsaved:
            self._known.execute("BEGIN IMMEDIATE")
            self._known.executemany("REPLACE INTO digests VALUES (?, ?, ?)", self._unsaved)
            self._known.execute("COMMIT")
        self._unsaved = []
        self._saved_at = time.monotonic()


def weights_fingerprint(checkpoint: str | None, runtime: Runtime) -> str | None:
    """What stands for a local model's weights in the keys of its stored replies; None for a hosted model."""
    if checkpoint is None:
        return None
    store = Store(runtime.store, runtime.scratch / "fetched")
    return Sources(store, runtime, resolve_hub=True).fingerprint(checkpoint)


def parse_hub_id(source: str) -> dict[str, str | None]:
    """Parts of `hub:[datasets/]org/name[@revision]`.

    Raises:
        InputError: It is not of this form.
    """
    match = _HUB_ID.fullmatch(source)
    if match is None:
        raise InputError(f"{source!r} is not a hub id; write hub:org/name or hub:org/name@ and 40 hex digits")
    return match.groupdict()


def list_files(path: Path) -> Iterator[tuple[Path, str]]:
    """The files under a folder with their relative names, in name order; or the one file itself.

    Hidden files and byte-code caches are left out. Links to files count as what they lead to, as loaders of
    models follow them; links to folders or to nothing, sockets and the like are given too, as corpora reject them.
    """
    if path.is_file():
        yield path, path.name
        return
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        hidden = any(part.startswith(".") or part == BYTE_CODE for part in name.parts)
        if not hidden and (file.is_symlink() or not file.is_dir()):
            yield file, name.as_posix()


def pinned(source: str, runtime: Runtime) -> str:
    """A hub id with the revision that counts; any other source as it is.

    Raises:
        InputError: The hub does not answer, or the id is malformed.
    """
    if not source.startswith(HUB) or parse_hub_id(source)["revision"]:
        return source
    store = Store(runtime.store, runtime.scratch / "fetched")
    return f"{source}@{Sources(store, runtime, resolve_hub=True).fingerprint(source)}"


def source_location(source: str, runtime: Runtime, patterns: tuple[str, ...] = ()) -> str:
    """Where files of a source are listed and opened: a URL as it is, else its place on this machine.

    Args:
        source: Path, URL or hub id.
        runtime: Where hub repositories are brought to.
        patterns: Of a hub repository, the files to bring; none brings all.

    Raises:
        InputError: A path is not there, or the hub does not give the repository.
    """
    return source if is_url(source) else str(local_path(source, runtime, patterns))


def local_path(source: str, runtime: Runtime, patterns: tuple[str, ...] = ()) -> Path:
    """Where a source lies on this machine; a hub repository is brought here at its locked revision.

    Args:
        source: Path or hub id.
        runtime: Where hub repositories are brought to.
        patterns: Of a hub repository, the files to bring; none brings all.

    Raises:
        InputError: A path is not there, or the hub does not give the repository.
    """
    if not source.startswith(HUB):
        path = Path(source)
        if not path.exists():
            raise InputError(f"{path} does not exist; correct the path in the recipe, or put the data there")
        return path
    match = parse_hub_id(source)
    store = Store(runtime.store, runtime.scratch / "fetched")
    revision = Sources(store, runtime, resolve_hub=True).fingerprint(source)
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            str(match["id"]),
            repo_type="dataset" if match["set"] else "model",
            revision=revision,
            allow_patterns=list(patterns) or None,
            # Plain files: the hub's own cache is links that lead out of their folder.
            local_dir=runtime.scratch / "hub" / f"{match['id']}@{revision}".replace("/", "--"),
        )
    except Exception as error:
        raise InputError(
            f"the hub does not give {source} ({type(error).__name__}); check the id, the network and HF_TOKEN, "
            "or name a local copy of it"
        ) from error
    return Path(folder)
