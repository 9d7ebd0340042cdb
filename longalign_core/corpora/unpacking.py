"""Compressed files of a corpus as streams, and what damage in them raises."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from backports import zstd

from longalign_core.errors import LongAlignError
from longalign_core.source_files import SourceFile

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)
"""What decoding damaged bytes raises. An OSError among them need not mean that; see `raise_unless_damaged`."""


@contextmanager
def open_unpacked(file: SourceFile) -> Iterator[BinaryIO]:
    """Open a file for reading what its `.gz`, `.bz2`, `.xz` or `.zst` holds; any other file as it is."""
    with file.open() as stored:
        match PurePosixPath(file.relative_path).suffix.lower():
            case ".gz":
                yield cast(BinaryIO, gzip.GzipFile(fileobj=stored, mode="rb"))
            case ".bz2":
                yield cast(BinaryIO, bz2.BZ2File(stored, mode="rb"))
            case ".xz":
                yield cast(BinaryIO, lzma.LZMAFile(stored, mode="rb"))  # noqa: SIM115
            case ".zst":
                # Unlike zstandard's reader, it tells a file that breaks off.
                yield cast(BinaryIO, zstd.ZstdFile(stored, mode="r"))
            case _:
                yield stored


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
