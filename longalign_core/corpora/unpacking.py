"""Compressed files of a corpus as streams, and what damage in them raises."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from backports import zstd
from typing_extensions import override

from longalign_core.errors import LongAlignError
from longalign_core.source_files import SourceFile

_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_MAGIC_BYTES = 6
_READ_BYTES = 1 << 17
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)
"""What decoding damaged bytes raises. An OSError among them need not mean that; see `raise_unless_damaged`."""


@contextmanager
def open_unpacked(file: SourceFile) -> Iterator[BinaryIO]:
    """Open a file for reading what its `.gz`, `.bz2`, `.xz` or `.zst` holds; any other file as it is."""
    with file.open() as stored:
        match PurePosixPath(file.relative_path).suffix.lower():
            case ".bz2":
                yield cast(BinaryIO, io.BufferedReader(_Streams(stored, bz2.BZ2Decompressor)))
            case ".xz":
                yield cast(BinaryIO, io.BufferedReader(_Streams(stored, lzma.LZMADecompressor)))
            case suffix:
                yield _unpacked(stored, suffix)


class _Streams(io.RawIOBase):
    """What the compressed streams of a file hold, one after another.

    The library's own files take a later stream that is damaged at its start for trailing bytes, and
    end without a word.
    """

    def __init__(self, stored: BinaryIO, decompressor: type[bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self._stored, self._new = stored, decompressor
        self._decompressor = decompressor()

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            waiting = b""
            if self._decompressor.eof:
                waiting = self._decompressor.unused_data or self._stored.read(_READ_BYTES)
                if not waiting.strip(b"\0"):  # xz allows padding
                    return 0
                self._decompressor = self._new()
            elif self._decompressor.needs_input:
                waiting = self._stored.read(_READ_BYTES)
                if not waiting:
                    raise EOFError("the file ends before its compressed stream does")
            data = self._decompressor.decompress(waiting, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def unpacked_by_content(stored: BinaryIO) -> BinaryIO:
    """A stream, seekable or buffered, unpacked by what its first bytes say; as it is where they say nothing."""
    if isinstance(stored, io.BufferedReader):
        head = stored.peek(_MAGIC_BYTES)
    else:
        head = stored.read(_MAGIC_BYTES)
        stored.seek(0)
    return _unpacked(stored, next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), ""))


def _unpacked(stored: BinaryIO, suffix: str) -> BinaryIO:
    match suffix:
        case ".gz":
            if not stored.read(1):  # gzip takes no bytes for a whole file
                raise EOFError("the file is empty")
            stored.seek(0)
            return cast(BinaryIO, gzip.GzipFile(fileobj=stored, mode="rb"))
        case ".bz2":
            return cast(BinaryIO, bz2.BZ2File(stored, mode="rb"))
        case ".xz":
            return cast(BinaryIO, lzma.LZMAFile(stored, mode="rb"))
        case ".zst":
            # Unlike zstandard's reader, it tells a file that breaks off.
            return cast(BinaryIO, zstd.ZstdFile(stored, mode="r"))
        case _:
            return stored


def raise_unless_damaged(error: Exception) -> None:
    """Raise an error again that says that bytes could not be fetched, not that they are damaged.

    The codecs raise plain OSErrors for damaged data; those of a disk carry an errno, and what goes
    wrong in a network is a `SourceError`.
    """
    if isinstance(error, LongAlignError) or (isinstance(error, OSError) and error.errno is not None):
        raise error


def without_compression(relative_path: str) -> str:
    """The path without a final `.gz`, `.bz2`, `.xz` or `.zst`."""
    for suffix in COMPRESSIONS:
        relative_path = relative_path.removesuffix(suffix)
    return relative_path
