"""The manifest: one small JSON object that says what an artifact is, and the only mark of done."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from longalign_core.errors import ManifestError

SCHEMA = 1


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
    sha256: str


class Manifest(BaseModel):
    """What one artifact is made of and made from.

    Attributes:
        schema_version: Form of this record; a newer one is refused.
        label: Which of several products of the stage, for people.
        attempt: Folder under the address that holds the files.
        config: The stage's own config section as it entered the key, sources by fingerprint.
        inputs: Addresses of the inputs by name.
        counts: What the stage counted.
        runtime: Where and how it was made; no part of the key.
        provenance: Commit, package versions, host, seconds, time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: int = Field(alias="schema")
    stage: str
    version: int
    key: str
    label: str = ""
    attempt: str
    config: dict[str, Any]
    inputs: dict[str, list[str]]
    files: tuple[FileEntry, ...]
    counts: dict[str, int | float | str]
    runtime: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def address(self) -> str:
        """`{stage}/{key}`."""
        return f"{self.stage}/{self.key}"

    @property
    def folder(self) -> str:
        """Where its files lie in the store."""
        return f"{self.stage}/{self.key}/{self.attempt}"

    def to_bytes(self) -> bytes:
        """Readable JSON."""
        return json.dumps(self.model_dump(by_alias=True), indent=1, ensure_ascii=False).encode()


def manifest_name(address: str) -> str:
    """Where the manifest of an address lies in the store."""
    return f"{address}/manifest.json"


def parse_manifest(data: bytes, place: str) -> Manifest:
    """Read a manifest.

    Raises:
        ManifestError: It is not whole JSON, lacks fields, or has a newer schema.
    """
    remedy = f"delete {place} to make the artifact anew"
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise ManifestError(f"the manifest {place} is not JSON; {remedy}") from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ManifestError(
            f"the manifest {place} has schema {schema}, this version reads up to {SCHEMA}; "
            "use the newer longalign that wrote it, or another store"
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ManifestError(f"the manifest {place} is damaged at {where} ({first['msg']}); {remedy}") from error


def file_sha256(path: Path) -> str:
    """Sha256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(folder: Path, name: Path) -> FileEntry:
    """What a manifest says of a file, by its name in a folder."""
    path = folder / name
    return FileEntry(path=name.as_posix(), size=path.stat().st_size, sha256=file_sha256(path))


def matches(path: Path, entry: FileEntry) -> bool:
    """Whether a file is what was said of it."""
    return path.stat().st_size == entry.size and file_sha256(path) == entry.sha256
