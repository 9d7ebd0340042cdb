"""The files of a corpus as readers see them: a name, a size and a way to open. No file system."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn, cast

from longalign_core.errors import DataError, InputError


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a corpus.

    Attributes:
        relative_path: Below the corpus's location, with `/`; never absolute, never leading out of it.
        size: In bytes, as stored.
        open: Opens the stored bytes for reading from the start; seekable where archives are read.
    """

    relative_path: str
    size: int
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a location holds.

    Attributes:
        files: The files to read, sorted by relative path.
        links: Relative paths of symbolic links, which are not followed, and of sockets and the like.
        num_hidden: Files and folders left out because their name begins with a dot.
    """

    files: tuple[SourceFile, ...]
    links: tuple[str, ...]
    num_hidden: int


def list_files(location: Path) -> Listing:
    """List a single file, or the files of a folder and its sub-folders, by relative path.

    Links below the location are never followed: they may lead out of it, or in circles. Names that
    begin with a dot (`.git`, `.DS_Store`) are left out. The location itself may be a link.

    Raises:
        InputError: There is nothing at the location, or it may not be read.
    """
    if location.is_file():
        size = location.stat().st_size
        return Listing((SourceFile(location.name, size, partial(_open_local, location, location.name)),), (), 0)
    if not location.is_dir():
        raise InputError(
            f"there is no file or folder {location.name!r} at {str(location)!r}; correct the corpus's location"
        )
    files: list[SourceFile] = []
    links: list[str] = []
    num_hidden = 0
    for folder, folder_names, file_names in os.walk(location, onerror=_refuse_unreadable):
        visible = [name for name in folder_names if not name.startswith(".")]
        num_hidden += len(folder_names) - len(visible)
        folder_names[:] = [name for name in visible if not Path(folder, name).is_symlink()]
        links += [_relative(location, folder, name) for name in visible if name not in folder_names]
        for name in file_names:
            path = Path(folder, name)
            relative_path = _relative(location, folder, name)
            if name.startswith("."):
                num_hidden += 1
            elif path.is_symlink() or not path.is_file():
                links.append(relative_path)
            else:
                files.append(SourceFile(relative_path, path.stat().st_size, partial(_open_local, path, relative_path)))
    return Listing(tuple(sorted(files, key=lambda file: file.relative_path)), tuple(sorted(links)), num_hidden)


@contextmanager
def open_unpacked(file: SourceFile) -> Iterator[BinaryIO]:
    """Open a file for reading what its `.gz` or `.bz2` holds; any other file as it is."""
    with file.open() as stored:
        match PurePosixPath(file.relative_path).suffix.lower():
            case ".gz":
                yield cast(BinaryIO, gzip.GzipFile(fileobj=stored, mode="rb"))
            case ".bz2":
                yield cast(BinaryIO, bz2.BZ2File(stored, mode="rb"))
            case _:
                yield stored


DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What decoding damaged bytes raises. An OSError among them need not mean that; see `raise_unless_damaged`."""


def raise_unless_damaged(error: Exception) -> None:
    """Raise an error again that says that bytes could not be fetched, not that they are damaged.

    The codecs raise plain OSErrors for damaged data; those of a disk or a network carry an errno.
    """
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def printable(name: str) -> str:
    """A name that any file can hold: bytes of a file name that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def without_compression(relative_path: str) -> str:
    """The path without a final `.gz` or `.bz2`."""
    return relative_path.removesuffix(".gz").removesuffix(".bz2")


def _relative(location: Path, folder: str, name: str) -> str:
    return printable(Path(folder, name).relative_to(location).as_posix())


def _open_local(path: Path, relative_path: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"{relative_path} cannot be read ({error.strerror}); make it readable or take it out of the corpus"
        ) from None


def _refuse_unreadable(error: OSError) -> NoReturn:
    name = Path(error.filename).name if error.filename else "a folder"
    raise InputError(f"{name} cannot be listed ({error.strerror}); make it readable or take it out of the corpus")
