"""arXiv's bulk source: tar files of one `.gz` a paper, LaTeX to text."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from longalign_core.config.corpus_formats import ArxivCorpus
from longalign_core.corpora.archives import UnsafeMember, archive_members, reporting_damage
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.latex.expansion import expand
from longalign_core.corpora.latex.project import SOURCE_SUFFIXES, TEX_SUFFIXES, Project
from longalign_core.corpora.latex.source import EndlessMacrosError
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.errors import DataError
from longalign_core.records import Reject

MAX_PACKED_BYTES = 256 << 20
MAX_UNPACKED_BYTES = 512 << 20
"""A paper whose sources and pictures unpack to more is refused: its text would be lost among them, or it is a bomb."""
MAX_SOURCE_BYTES = 4 * MAX_TEXT_BYTES
_PAPER_SUFFIXES = (".tar.gz", ".tgz", ".gz", *TEX_SUFFIXES)
_ID = re.compile(r"(\d{2})(0[1-9]|1[0-2])\.\d{4,5}(?:v\d+)?")
_OLD_ID = re.compile(r"([a-z-]+(?:\.[A-Za-z-]+)?)/?((\d{2})(0[1-9]|1[0-2])\d{3}(?:v\d+)?)")
_FIRST_OLD_YEAR = 91
_HEAD_BYTES = 512


def read(unit: Unit, config: ArxivCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read every paper of a bulk tar, or the one of another file; see `reading.Reader`.

    The position is the number of members of the tar that were handled. A tar that breaks off gives
    the papers before the break. A file taken in that is missing is told by a reject beside its paper.
    """
    (file,) = unit.files
    path = file.relative_path
    if not path.lower().endswith((".tar", ".pdf", *_PAPER_SUFFIXES)):
        yield reject(config, path, "other file type", "expected .tar with one .gz a paper, .gz, .tar.gz or .tex")
        return
    with file.open() as stream:
        if path.lower().endswith(".tar"):
            yield from _read_bulk(stream, path, config, cursor)
        elif cursor.position == 0:
            yield from _counted(cursor, 1, _read_paper(_Packed(path, path, file.size, stream.read), config))


@dataclass(frozen=True, slots=True)
class _Packed:
    """A paper as it is stored."""

    path: str
    origin: str
    size: int
    content: Callable[[], bytes]


def _read_bulk(stream: BinaryIO, path: str, config: ArxivCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    number = 0
    try:
        with reporting_damage(path):
            for number, member in enumerate(archive_members(stream, path), start=1):
                if number <= cursor.position:
                    continue
                if isinstance(member, UnsafeMember):
                    cursor.position = number
                    yield reject(config, f"{path}: {member.path}", "unsafe archive member", member.why)
                else:
                    packed = _Packed(member.path, f"{path}: {member.path}", member.size, member.read)
                    yield from _counted(cursor, number, _read_paper(packed, config))
    except DataError as error:
        yield reject(config, path, "truncated archive", f"after member {number}: {error}")


def _counted(cursor: Cursor, position: int, records: Iterator[RawDocument | Reject]) -> Iterator[RawDocument | Reject]:
    """The same records; the cursor is raised before the last one."""
    *first, last = records
    yield from first
    cursor.position = position
    yield last


def _read_paper(packed: _Packed, config: ArxivCorpus) -> Iterator[RawDocument | Reject]:
    """Rejects of parts of a paper, and its document or reject as the last record."""
    paper = _paper_id(packed.path)
    name = paper.id or packed.origin
    if packed.path.lower().endswith(".pdf"):
        yield reject(config, name, "pdf only", packed.origin)
    elif not packed.path.lower().endswith(_PAPER_SUFFIXES):
        yield reject(config, name, "other file type", f"{packed.origin} is no .gz")
    elif packed.size > MAX_PACKED_BYTES:
        yield reject(config, name, "too large", f"{packed.origin} has {packed.size} bytes")
    else:
        data = packed.content()
        try:
            with reporting_damage(packed.origin):
                files, unsafe = _unpack(data, packed.path)
        except _TooLargeError:
            yield reject(config, name, "too large", f"{packed.origin} unpacks to more than is read")
        except DataError as error:
            yield reject(config, name, "damaged paper", str(error))
        else:
            for member in unsafe:
                yield reject(
                    config, f"{name}: {member.path}", "unsafe archive member", f"{packed.origin}: {member.why}"
                )
            yield from _read_project(Project(files), paper, name, packed.origin, config)


def _read_project(
    project: Project, paper: _PaperId, name: str, origin: str, config: ArxivCorpus
) -> Iterator[RawDocument | Reject]:
    from longalign_core.corpora.latex.text import UnreadableLatexError, latex_text

    root = project.root()
    if root is None:
        found = ", ".join(sorted(project.files)[:5]) or "nothing"
        only_pdf = project.files and all(path.lower().endswith(".pdf") for path in project.files)
        reason = "pdf only" if only_pdf else "no root file"
        yield reject(config, name, reason, f"{origin} has no file with \\documentclass, but {found}")
        return
    try:
        expanded = expand(project, root, bibliography=config.bibliography)
        if len(expanded.latex) > MAX_TEXT_BYTES:
            yield reject(config, name, "too large", f"{origin}: {len(expanded.latex)} characters of LaTeX")
            return
        paper_text = latex_text(expanded.latex, bibliography=config.bibliography)
    except EndlessMacrosError:
        yield reject(config, name, "endless macros", f"{origin}: the macros of {root} do not come to an end")
        return
    except (UnreadableLatexError, RecursionError) as error:
        yield reject(config, name, "unreadable LaTeX", f"{origin}: {root}: {error}")
        return
    if expanded.missing:
        missing = ", ".join(expanded.missing[:5])
        yield reject(config, f"{name}: missing", "missing input", f"{origin}: {root} takes in {missing}; read without")
    yield RawDocument(name, paper_text.text, origin=origin, url=paper.url, title=paper_text.title, created=paper.month)


@dataclass(frozen=True, slots=True)
class _PaperId:
    """What a file name says of a paper; None where it is not arXiv's.

    Attributes:
        id: Such as 1202.3665 or astro-ph/0001001.
        month: Of its submission, ISO 8601.
    """

    id: str | None
    month: str | None

    @property
    def url(self) -> str | None:
        """Its page."""
        return self.id and f"https://arxiv.org/abs/{self.id}"


def _paper_id(path: str) -> _PaperId:
    stem = PurePosixPath(path).name
    for suffix in (*_PAPER_SUFFIXES, ".pdf"):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    if found := _ID.fullmatch(stem):
        return _PaperId(stem, f"20{found[1]}-{found[2]}")
    if found := _OLD_ID.fullmatch(stem):
        century = 19 if int(found[3]) >= _FIRST_OLD_YEAR else 20
        return _PaperId(f"{found[1]}/{found[2]}", f"{century}{found[3]}-{found[4]}")
    return _PaperId(None, None)


class _TooLargeError(Exception):
    """Unpacks to more than is read."""


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than a paper has."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream, self._left = stream, MAX_UNPACKED_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise _TooLargeError
        buffer[: len(data)] = data
        return len(data)


def _unpack(data: bytes, path: str) -> tuple[dict[str, bytes], list[UnsafeMember]]:
    """Source files of a paper by path, and the members that are refused. Pictures are passed over."""
    packed: BinaryIO = io.BytesIO(data)
    if path.lower().endswith(("gz",)):
        packed = cast(BinaryIO, gzip.GzipFile(fileobj=packed, mode="rb"))
    stream = io.BufferedReader(_Bounded(packed), 1 << 16)
    if not _is_tar(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]):
        text = stream.read(MAX_SOURCE_BYTES + 1)
        if len(text) > MAX_SOURCE_BYTES:
            raise _TooLargeError
        suffix = ".pdf" if text.startswith(b"%PDF") else ".ps" if text.startswith(b"%!") else ".tex"
        return {f"paper{suffix}": text}, []
    files: dict[str, bytes] = {}
    unsafe: list[UnsafeMember] = []
    num_bytes = 0
    for member in archive_members(cast(BinaryIO, stream), "paper.tar"):
        if isinstance(member, UnsafeMember):
            unsafe.append(member)
            continue
        is_source = member.path.lower().endswith(SOURCE_SUFFIXES) or "." not in PurePosixPath(member.path).name
        if not is_source and not member.path.lower().startswith("00readme"):
            files.setdefault(member.path, b"")
            continue
        num_bytes += member.size
        if num_bytes > MAX_SOURCE_BYTES:
            raise _TooLargeError
        files[member.path] = member.read()
    return files, unsafe


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
