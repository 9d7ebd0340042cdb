"""Members of tar and zip archives, read from the stream, never written to disk."""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO, Self

from longalign_core.corpora.unpacking import DAMAGE, raise_unless_damaged, unpacked_by_content
from longalign_core.errors import DataError
from longalign_core.source_files import printable

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip")
MAX_UNPACKED_BYTES = 4 << 30
"""An archive that unpacks to more is refused: it is not a source tree, or it is a bomb."""
MAX_MEMBERS = 200_000
_MAX_HEADER_BYTES = 1 << 20
_HEADERS_OF_ANY_LENGTH = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class DamagedSourceError(DataError):
    """An archive or repository whose bytes are not what they should be, or that is beyond all bounds."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of a source tree or archive.

    Attributes:
        path: With `/`, never absolute, no `..`.
        size: In bytes, as stated; `read` gives no more.
        read: The content. To be called before the next member is taken.
    """

    path: str
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class UnsafeMember:
    """A member that is refused: it points out of the archive, or is not a regular file."""

    path: str
    why: str


def is_archive(path: str) -> bool:
    """Whether a file is an archive by its name."""
    return path.lower().endswith(SUFFIXES)


def archive_stem(path: str) -> str:
    """File name of an archive without what says that it is one."""
    name = PurePosixPath(path).name
    suffix = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(suffix))
    return name[: -len(suffix)]


def archive_members(stream: BinaryIO, path: str) -> Iterator[Member | UnsafeMember]:
    """Members of an archive in its own order; folders are passed over.

    Args:
        stream: The archive's bytes; seekable.
        path: Its name, by which zip is told from tar.

    Raises:
        DamagedSourceError: It unpacks to more than is read. What damage raises, see `reporting_damage`.
    """
    members = _zip_members(stream) if path.lower().endswith(".zip") else _tar_members(stream)
    num_bytes = 0
    for num_members, member in enumerate(members, start=1):
        num_bytes += member.size if isinstance(member, Member) else 0
        if num_members > MAX_MEMBERS or num_bytes > MAX_UNPACKED_BYTES:
            raise DamagedSourceError(f"{path} holds more than {MAX_MEMBERS} files or {MAX_UNPACKED_BYTES} bytes")
        yield member


@contextmanager
def reporting_damage(path: str) -> Iterator[None]:
    """Turn what a damaged or encrypted archive raises, while it is listed or read, into a DamagedSourceError."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, RuntimeError, *DAMAGE) as error:
        raise_unless_damaged(error)
        raise DamagedSourceError(f"{path} is damaged or encrypted ({type(error).__name__})") from None


def _tar_members(stream: BinaryIO) -> Iterator[Member | UnsafeMember]:
    # Unpacked here and not by tarfile, which looks at no checksum of what it unpacks.
    unpacked = unpacked_by_content(stream)
    with tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_StrictTarInfo) as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # or all headers stay in memory
            if info.isdir():
                continue
            if why := _unsafe_name(info.name) or (None if info.isreg() else "not a regular file"):
                yield UnsafeMember(printable(info.name), why)
                continue
            yield Member(_plain_path(info.name), info.size, partial(_read_tar_member, archive, info))
        # Checksums stand at the end. What tarfile takes for the end may be a hole in the middle.
        num_bytes = 0
        while data := archive.fileobj.read(1 << 20):
            if data.count(0) != len(data):
                raise DamagedSourceError("more follows what looks like the end of the archive")
            num_bytes += len(data)
            if num_bytes > MAX_UNPACKED_BYTES:
                raise DamagedSourceError(f"more than {MAX_UNPACKED_BYTES} bytes follow the last member")


class _StrictTarInfo(tarfile.TarInfo):
    """Tells a damaged or missing header, which tarfile takes for the end of the archive, or one without end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf and not any(buf):  # the block of zeros that ends every archive
                raise
            raise tarfile.ReadError(str(error)) from None
        if info.type in _HEADERS_OF_ANY_LENGTH and info.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


def _read_tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(info)
    assert content is not None, "asked for the content of a tar member that is not a regular file"
    return content.read()


def _zip_members(stream: BinaryIO) -> Iterator[Member | UnsafeMember]:
    with _only_bad_zip_file():
        opened = zipfile.ZipFile(stream)
    with opened as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            is_special = stat.S_IFMT(mode) not in (0, stat.S_IFREG)
            if why := _unsafe_name(info.filename) or ("not a regular file" if is_special else None):
                yield UnsafeMember(printable(info.filename), why)
                continue
            yield Member(_plain_path(info.filename), info.file_size, partial(_read_zip_member, archive, info))


def _read_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.header_offset < 0:  # a seek would fail as it does on a broken disk
        raise zipfile.BadZipFile("a member before the file's beginning")
    with _only_bad_zip_file(), archive.open(info) as content:
        return content.read(info.file_size)


@contextmanager
def _only_bad_zip_file() -> Iterator[None]:
    """Turn what zipfile lets through of damaged fields into what it raises for most of them."""
    try:
        yield
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise zipfile.BadZipFile(type(error).__name__) from None


def _unsafe_name(name: str) -> str | None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or parts[0].endswith(":"):
        return "absolute path"
    return "path with .." if ".." in parts else None


def _plain_path(name: str) -> str:
    return printable(PurePosixPath(name.replace("\\", "/")).as_posix())
