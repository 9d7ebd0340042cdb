"""The files of a source: a name, a size and a way to open, on a disk or behind any fsspec URL."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from longalign_core.errors import DataError, InputError, SourceError

_CHECKSUMS = ("ETag", "etag", "md5Hash", "md5", "Content-MD5", "sha256")
BYTE_CODE = "__pycache__"
"""Folder that Python writes where code is used, whatever the source holds."""
_BLOCK_BYTES = 8 << 20
_BUFFER_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        relative_path: Below the source's location, with `/`; never absolute, never leading out of it.
        size: In bytes, as stored.
        open: Opens the stored bytes for reading from the start; seekable. Can be pickled, so that
            another process can read the file.
        checksum: What the place itself says of the content (an ETag); None where it says nothing.
    """

    relative_path: str
    size: int
    open: Callable[[], BinaryIO]
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a location holds.

    Attributes:
        files: The files to read, sorted by relative path.
        links: Relative paths of symbolic links, which are not followed, and of sockets and the like.
        num_hidden: Files and folders left out because their name begins with a dot, and byte-code caches.
    """

    files: tuple[SourceFile, ...]
    links: tuple[str, ...]
    num_hidden: int


def is_url(location: str) -> bool:
    """Whether a location is an fsspec URL, such as `s3://bucket/c4`, and not a path of this machine."""
    return "://" in location


def list_files(location: str | Path) -> Listing:
    """List a single file, or the files of a folder and its sub-folders, by relative path.

    Links below the location are never followed: they may lead out of it, or in circles. Names that
    begin with a dot (`.git`, `.DS_Store`) and byte-code caches of a disk are left out. The location itself
    may be a link.

    Args:
        location: A path, or any URL that fsspec knows: `s3://…`, `https://…/file.gz`, `zip://::…`.

    Raises:
        InputError: There is nothing at the location, or it may not be read.
    """
    if isinstance(location, str) and is_url(location):
        if not location.startswith("file://"):
            return _list_remote(location)
        location = location.removeprefix("file://")
    # Workers of a cluster may run in another folder.
    return _list_local(Path(location).absolute())


def printable(name: str) -> str:
    """A name that any file can hold: bytes of a file name that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _list_local(location: Path) -> Listing:
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
        visible = [name for name in folder_names if not name.startswith(".") and name != BYTE_CODE]
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
    return Listing(_by_path(files), tuple(sorted(links)), num_hidden)


def _list_remote(url: str) -> Listing:
    files: list[SourceFile] = []
    num_hidden = 0
    with _explained(url):
        system, root = _file_system(url)
        found: dict[str, dict[str, Any]] = {}
        if system.isfile(root):
            found, start = {root: system.info(root)}, len(root) - len(root.rsplit("/", 1)[-1])
        else:
            found, start = system.find(root, detail=True), len(root.rstrip("/")) + 1 if root.strip("/") else 0
        for path, info in sorted(found.items()):
            relative_path = printable(path[start:].lstrip("/"))
            if info.get("type", "file") != "file" or ".." in relative_path.split("/"):
                continue
            if any(part.startswith(".") for part in relative_path.split("/")):
                num_hidden += 1
                continue
            checksum = next((str(info[name]) for name in _CHECKSUMS if info.get(name)), None)
            opener = partial(_open_remote, url, path, relative_path)
            files.append(SourceFile(relative_path, int(info.get("size") or 0), opener, checksum))
    if not found:
        raise InputError(
            f"there is nothing at {url}, or its server does not answer; correct the location of the corpus"
        )
    return Listing(_by_path(files), (), num_hidden)


def _by_path(files: list[SourceFile]) -> tuple[SourceFile, ...]:
    return tuple(sorted(files, key=lambda file: file.relative_path))


def _file_system(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    # A cached listing would deny what another client has just written.
    options = {"use_listings_cache": False, "skip_instance_cache": True} if url.startswith("s3://") else {}
    return cast(tuple[Any, str], url_to_fs(url, **options))


def _open_remote(url: str, path: str, relative_path: str) -> BinaryIO:
    # A buffer of its own: fsspec's files read lines byte by byte, in Python.
    return cast(BinaryIO, io.BufferedReader(_RemoteBytes(url, path), _BUFFER_BYTES))


class _RemoteBytes(io.RawIOBase):
    """A remote file whose failures are told apart from the end of its data, and that can always seek.

    A place that gives no ranges is read again from the start to go back.
    """

    def __init__(self, url: str, path: str) -> None:
        self._url, self._path, self._position = url, path, 0
        self._file, self._size = self._open()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        with _explained_while_read(self._url):
            data = self._file.read(len(buffer))
        if not data and len(buffer) and self._size is not None and self._position < self._size:
            raise SourceError(
                f"{self._url} ended after {self._position} of {self._size} bytes of {self._path.rsplit('/', 1)[-1]}: "
                "the connection was lost, or the file was changed; run again: what is read is kept"
            )
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END and self._size is None:
            raise SourceError(f"{self._url} does not tell the size of its file; bring the data here to read it")
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size or 0}[whence]
        target = max(0, start + offset)
        if target != self._position:
            self._go_to(target)
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _go_to(self, target: int) -> None:
        with _explained_while_read(self._url):
            if self._file.seekable():
                self._position = self._file.seek(target)
                return
        if target < self._position:
            self._file.close()
            self._file, self._size = self._open()
            self._position = 0
        while self._position < target and self.read(min(_BUFFER_BYTES, target - self._position)):
            pass

    def _open(self) -> tuple[Any, int | None]:
        with _explained(self._url):
            # Kept: an archive is closed when its file system is forgotten.
            self._system, _ = _file_system(self._url)
            file = self._system.open(self._path, "rb", block_size=_BLOCK_BYTES)
            size = getattr(file, "size", None)
            return file, size if isinstance(size, int) else None


@contextmanager
def _explained_while_read(url: str) -> Iterator[None]:
    """For a place that could be opened: it fails now, whatever its client raises for that."""
    try:
        yield
    except (EOFError, zlib.error):  # of an archive that the URL leads into: damage, as in any file
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceError(
            f"{url} stopped answering ({type(error).__name__}: {reason}); check the network and the place, "
            "then run again: what is read is kept"
        ) from error


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{url} cannot be read: {error}; install what it names, or bring the data here") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{url} cannot be read ({type(error).__name__}: {reason[:200]}); correct the location, or give access to it"
        ) from error


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
