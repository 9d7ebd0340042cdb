"""Members of .7z archives, handed on while they are unpacked: nothing is written, little is held."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import BinaryIO, cast

from py7zr import SevenZipFile
from py7zr.exceptions import ArchiveError, PasswordRequired
from py7zr.io import Py7zIO, WriterFactory

from longalign_core.corpora.unpacking import raise_unless_damaged
from longalign_core.errors import DataError, InputError
from longalign_core.source_files import printable

Sink = Callable[[bytes], None]
_DAMAGE = (ArchiveError, EOFError, OSError, ValueError, lzma.LZMAError, zlib.error)


class DamagedArchiveError(DataError):
    """An archive, or the rest of it, cannot be unpacked."""


@dataclass(frozen=True, slots=True)
class SevenZipMember:
    """A file of an archive.

    Attributes:
        path: As the archive has it.
        why_unsafe: Why it is refused: it points out of the archive, or is a link. None for any other.
    """

    path: str
    why_unsafe: str | None


class SevenZip:
    """An open archive.

    Raises:
        DamagedArchiveError: It is none, is damaged, or is encrypted.
    """

    def __init__(self, stream: BinaryIO) -> None:
        stream.read(1)  # py7zr takes a disk that fails at once for an archive that is none
        stream.seek(0)
        try:
            self._archive = SevenZipFile(stream, mode="r")
            self.members = tuple(
                SevenZipMember(printable(one.filename), _why_unsafe(one.filename, one.is_symlink or one.is_junction))
                for one in self._archive.files
                if not one.is_directory
            )
        except PasswordRequired:
            raise DamagedArchiveError("it is encrypted; unpack it with its password") from None
        except InputError:
            raise
        # The parser of headers raises whatever it stumbles over.
        except Exception as error:
            raise_unless_damaged(error)
            words = " ".join(str(error).split())[:100]
            raise DamagedArchiveError(f"it cannot be opened ({type(error).__name__}: {words})") from None
        if self._archive.needs_password():
            raise DamagedArchiveError("it is encrypted; unpack it with its password")

    def send(self, member: SevenZipMember, sink: Sink) -> None:
        """Unpack one member into `sink`, some megabytes a call. To be called once.

        What `sink` raises comes out as it is.

        Raises:
            DamagedArchiveError: The archive is damaged; `sink` had what stands before.
        """
        assert member.why_unsafe is None, member.path
        factory = _OneSink(sink)
        try:
            self._archive.extract(targets=[member.path], factory=factory)
        except Exception as error:
            if factory.failure is not None:
                raise factory.failure from None
            if not isinstance(error, _DAMAGE):
                raise
            raise_unless_damaged(error)
            raise DamagedArchiveError(f"it is damaged ({type(error).__name__})") from None


class _Writer(Py7zIO):  # type: ignore[misc]
    """What py7zr writes a member to."""

    def __init__(self, factory: _OneSink) -> None:
        self._factory = factory
        self._size = 0

    def write(self, s: bytes | bytearray) -> int:
        self._size += len(s)
        try:
            self._factory.sink(bytes(s))
        except Exception as error:
            self._factory.failure = error
            raise
        return len(s)

    def read(self, size: int | None = None) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def flush(self) -> None:
        return None

    def size(self) -> int:
        return self._size


class _OneSink(WriterFactory):  # type: ignore[misc]
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.failure: Exception | None = None
        self._num_created = 0

    def create(self, filename: str) -> Py7zIO:
        self._num_created += 1
        if self._num_created > 1:  # another member of the same name
            self.sink = _ignore
        return cast(Py7zIO, _Writer(self))


def _ignore(data: bytes) -> None:
    return None


def _why_unsafe(path: str, is_link: bool) -> str | None:
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if ".." in parts or path.startswith("/") or PureWindowsPath(path).drive:
        return "it points out of the archive"
    return "it is a link" if is_link else None
