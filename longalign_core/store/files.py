"""The few file operations that the store is built on, for a local folder and for S3 alike.

Two of them carry every promise: `create` makes an object only if there is none, and `replace` only
if it is still the one that was read. S3 has both as conditional writes (`If-None-Match`,
`If-Match`); locally they are a link and a lock. fsspec is used here and nowhere else.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from typing_extensions import override

from longalign_core.errors import InputError, StoreError


class Files(Protocol):
    """Objects under a root, named by relative paths with forward slashes."""

    url: str

    def read(self, name: str) -> tuple[bytes, str]:
        """Content and version. Raises FileNotFoundError."""

    def create(self, name: str, data: bytes) -> None:
        """Write a new object, whole or not at all. Raises FileExistsError if there is one."""

    def replace(self, name: str, data: bytes, version: str) -> None:
        """Overwrite the object if it still has `version`. Raises FileExistsError if it has not."""

    def upload(self, source: Path, name: str) -> None:
        """Store a file under a name that nobody else writes."""

    def download(self, name: str, target: Path) -> Path:
        """Bring an object here; returns where it lies (`target`, or its own place if it is local)."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Size in bytes of every object whose name begins with the folder `prefix`."""

    def folders(self, prefix: str) -> list[str]:
        """Names directly under `prefix` that are folders, sorted."""

    def delete(self, prefix: str) -> None:
        """Delete an object, or everything under a folder. Nothing there is no error."""


def open_files(url: str) -> Files:
    """The files of a store: `s3://bucket/prefix`, or a folder.

    Raises:
        InputError: Another scheme, or an S3 URL without a bucket.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalFiles(Path(url))
    if scheme == "file":
        return LocalFiles(Path(rest))
    if scheme == "s3" and rest.strip("/"):
        return S3Files(rest.strip("/"))
    raise InputError(f"the store {url!r} is neither a folder nor s3://bucket/prefix; give one of these")


@contextmanager
def _explained(url: str, what: str) -> Iterator[None]:
    """Turn the file system's errors into a sentence; `create` and `read` rely on two passing through."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        if isinstance(error, StoreError):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise StoreError(f"cannot {what} the store {url}: {reason}; check its place, space, rights and keys") from error


class LocalFiles(Files):
    """A store in a local or shared folder."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.url = str(self._root)

    @override
    def read(self, name: str) -> tuple[bytes, str]:
        with _explained(self.url, "read"):
            data = (self._root / name).read_bytes()
        return data, hashlib.sha256(data).hexdigest()

    @override
    def create(self, name: str, data: bytes) -> None:
        with _explained(self.url, "write to"), self._written(name, data) as unnamed:
            os.link(unnamed, self._root / name)

    @override
    def replace(self, name: str, data: bytes, version: str) -> None:
        with _explained(self.url, "write to"), FileLock(self._path(f"_locks/{name.replace('/', '-')}")):
            if self.read(name)[1] != version:
                raise FileExistsError(name)
            with self._written(name, data) as unnamed:
                unnamed.replace(self._root / name)

    @override
    def upload(self, source: Path, name: str) -> None:
        with _explained(self.url, "write to"):
            target = self._path(name)
            try:
                os.link(source, target)  # the scratch folder is given up after a commit: no copy needed
            except OSError:
                shutil.copyfile(source, target)
            with target.open("rb") as file:
                os.fsync(file.fileno())

    @override
    def download(self, name: str, target: Path) -> Path:
        place = self._root / name
        if not place.is_file():
            raise FileNotFoundError(name)
        return place

    @override
    def sizes(self, prefix: str) -> dict[str, int]:
        with _explained(self.url, "read"):
            root = self._root / prefix
            files = [path for path in root.rglob("*") if path.is_file()]
            return {path.relative_to(self._root).as_posix(): path.stat().st_size for path in files}

    @override
    def folders(self, prefix: str) -> list[str]:
        with _explained(self.url, "read"):
            root = self._root / prefix
            return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []

    @override
    def delete(self, prefix: str) -> None:
        with _explained(self.url, "write to"):
            path = self._root / prefix
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def _written(self, name: str, data: bytes) -> Iterator[Path]:
        """The data under a name of its own, on disk for good, gone afterwards."""
        unnamed = self._path(name).with_name(f".{secrets.token_hex(8)}.part")
        try:
            with unnamed.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield unnamed
        finally:
            with suppress(OSError):
                unnamed.unlink(missing_ok=True)


class S3Files(Files):
    """A store in a bucket. Keys and endpoint come from the environment, as boto reads them."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.url = f"s3://{root}"
        self._connection: Any = None

    @property
    def _s3(self) -> Any:
        if self._connection is None:
            import s3fs

            # s3fs keeps listings: with them it denies objects that another client has just written.
            self._connection = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        return self._connection

    @override
    def read(self, name: str) -> tuple[bytes, str]:
        bucket, _, key = self._full(name).partition("/")
        with _explained(self.url, "read"):
            reply = self._s3.call_s3("get_object", Bucket=bucket, Key=key)
            data: bytes = _body(self._s3, reply)
            return data, reply["ETag"]

    @override
    def create(self, name: str, data: bytes) -> None:
        with _explained(self.url, "write to"):
            _settled(lambda: self._s3.pipe_file(self._full(name), data, mode="create"))

    @override
    def replace(self, name: str, data: bytes, version: str) -> None:
        bucket, _, key = self._full(name).partition("/")
        with _explained(self.url, "write to"):
            try:
                _settled(lambda: self._s3.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=version))
            except OSError as error:
                if "pre-condition" in str(error) or "PreconditionFailed" in str(error):
                    raise FileExistsError(name) from error
                raise

    @override
    def upload(self, source: Path, name: str) -> None:
        with _explained(self.url, "write to"):
            self._s3.put_file(str(source), self._full(name))

    @override
    def download(self, name: str, target: Path) -> Path:
        with _explained(self.url, "read"):
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(f".{secrets.token_hex(8)}.part")
            try:
                self._s3.get_file(self._full(name), str(unfinished))
                unfinished.replace(target)
            finally:
                unfinished.unlink(missing_ok=True)
        return target

    @override
    def sizes(self, prefix: str) -> dict[str, int]:
        with _explained(self.url, "read"):
            found = self._s3.find(self._full(prefix), detail=True)
        start = len(self._root) + 1
        return {name[start:]: int(entry["size"]) for name, entry in found.items()}

    @override
    def folders(self, prefix: str) -> list[str]:
        with _explained(self.url, "read"):
            try:
                entries = self._s3.ls(self._full(prefix), detail=True)
            except FileNotFoundError:
                return []
        return sorted(entry["name"].rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")

    @override
    def delete(self, prefix: str) -> None:
        with _explained(self.url, "write to"), suppress(FileNotFoundError):
            self._s3.rm(self._full(prefix), recursive=True)

    def _full(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")


def _settled(write: Callable[[], object]) -> None:
    """Carry out a conditional write; S3 may answer 409 while another one at the same key is under way."""
    for wait in (0.1, 0.5, 2.0):
        try:
            write()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(wait)
        else:
            return
    write()


def _body(s3: Any, reply: Any) -> bytes:
    """The body of a reply of the asynchronous client, read on that client's own loop."""
    from fsspec.asyn import sync

    async def read() -> bytes:
        async with reply["Body"] as stream:
            data: bytes = await stream.read()
            return data

    result: bytes = sync(s3.loop, read)
    return result
