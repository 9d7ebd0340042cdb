"""Objects of a bare git repository, by dulwich, from files that need not lie on this machine.

Nothing of the repository is run, and nothing outside its files is looked at: hooks, includes of its
configuration and alternates, which may lead anywhere, are passed over.
"""

from __future__ import annotations

import shutil
import traceback
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from dulwich.object_format import ObjectFormat
from dulwich.objects import ObjectID, RawObjectID, ShaFile
from dulwich.pack import OFS_DELTA, REF_DELTA, Pack, PackData, PackIndex, load_pack_index_file

from longalign_core.corpora.archives import DamagedSourceError
from longalign_core.corpora.unpacking import raise_unless_damaged
from longalign_core.errors import LongAlignError
from longalign_core.source_files import SourceFile

MAX_OBJECT_BYTES = 64 << 20
"""Largest object that is unpacked, on the way to another one too."""
_MAX_DELTA_CHAIN = 5_000
_HEAD_BYTES = 1 << 10
_DELTA_CACHE_BYTES = 16 << 20
_KINDS = {b"commit": 1, b"tree": 2, b"blob": 3, b"tag": 4}


@contextmanager
def reporting_git_damage(name: str) -> Iterator[None]:
    """Turn what dulwich raises for damaged bytes into a DamagedSourceError."""
    try:
        yield
    except LongAlignError:
        raise
    except Exception as error:  # AssertionError, KeyError, struct.error, zlib.error …: dulwich has no common one
        raise_unless_damaged(error)
        traceback.clear_frames(error.__traceback__)  # they hold on to the mapped pack, which then cannot be closed
        raise DamagedSourceError(f"{name} is damaged ({type(error).__name__})") from None


class GitObjects:
    """Finds objects, packed and loose. Every object is checked against its id."""

    def __init__(self, files: Mapping[str, SourceFile], packs: list[_OpenPack], object_format: ObjectFormat) -> None:
        self._files = files
        self._packs = packs
        self._format = object_format

    def size(self, object_id: bytes) -> int:
        """Bytes of an object, found without unpacking it; more than `MAX_OBJECT_BYTES` where it cannot be unpacked."""
        hex_id = object_id.decode("ascii")
        with reporting_git_damage(f"git object {hex_id}"):
            for pack in self._packs:
                if (offset := pack.find(object_id)) is not None:
                    return pack.size(offset)
        # Read out of the guard: what a network raises is not damage.
        data = self._loose_bytes(hex_id, _HEAD_BYTES)
        with reporting_git_damage(f"git object {hex_id}"):
            return _loose_head(data)[1]

    def get(self, object_id: bytes) -> ShaFile:
        """An object by its id in hexadecimal.

        Raises:
            DamagedSourceError: It is missing, damaged, or larger than `MAX_OBJECT_BYTES`.
        """
        hex_id = object_id.decode("ascii")
        if self.size(object_id) > MAX_OBJECT_BYTES:
            raise DamagedSourceError(f"git object {hex_id} has more than {MAX_OBJECT_BYTES} bytes")
        pack = next((one for one in self._packs if one.find(object_id) is not None), None)
        data = b"" if pack else self._loose_bytes(hex_id, MAX_OBJECT_BYTES)
        with reporting_git_damage(f"git object {hex_id}"):
            if pack:
                kind, content = pack.pack.get_raw(ObjectID(object_id))
            else:
                kind, size, num_head = _loose_head(data)
                content = zlib.decompressobj().decompress(data, num_head + size)[num_head:]
            return ShaFile.from_raw_string(kind, content, object_format=self._format, verify_sha=ObjectID(object_id))

    def _loose_bytes(self, hex_id: str, num_bytes: int) -> bytes:
        file = self._files.get(f"objects/{hex_id[:2]}/{hex_id[2:]}")
        if file is None:
            raise DamagedSourceError(f"git object {hex_id} is missing")
        with file.open() as stream:
            return stream.read(num_bytes)


def _loose_head(data: bytes) -> tuple[int, int, int]:
    """Kind and size of a loose object by its first bytes, and how many bytes say so, unpacked."""
    head = zlib.decompressobj().decompress(data, 64).partition(b"\0")[0]
    kind, _, size = head.partition(b" ")
    return _KINDS[kind], int(size), len(head) + 1


@dataclass(slots=True)
class _OpenPack:
    pack: Pack
    stream: BinaryIO
    sizes: dict[int, int]

    def find(self, object_id: bytes) -> int | None:
        try:
            return self.pack.index.object_offset(ObjectID(object_id))
        except KeyError:
            return None

    def size(self, offset: int) -> int:
        """Size of the object at an offset; where a base of it is larger, too large to unpack, the base's."""
        if offset not in self.sizes:
            self.sizes[offset] = self._size(offset)
        return self.sizes[offset]

    def _size(self, offset: int) -> int:
        result = None
        for _ in range(_MAX_DELTA_CHAIN):
            if offset < 0:  # a seek would fail as it does on a broken disk
                raise DamagedSourceError("a git object has a base before the pack's beginning")
            self.stream.seek(offset)
            entry = _parse_entry(self.stream.read(_HEAD_BYTES), self.pack.object_format.oid_length)
            result = entry.size if result is None else result
            largest = max(entry.size, entry.stored_size)
            if entry.base is None or largest > MAX_OBJECT_BYTES:
                return largest if largest > MAX_OBJECT_BYTES else result
            if isinstance(entry.base, int):
                offset -= entry.base
            else:
                offset = self.pack.index.object_offset(RawObjectID(entry.base))
        raise DamagedSourceError("a git object has too many bases")


@dataclass(frozen=True, slots=True)
class _Entry:
    """Head of an object in a pack: its size, the size of what is stored, and its base (distance or id)."""

    size: int
    stored_size: int
    base: int | bytes | None


def _parse_entry(data: bytes, id_length: int) -> _Entry:
    stored_size, end = _little_endian(data, 0, first_bits=4)
    match data[0] >> 4 & 7:
        case kind if kind == OFS_DELTA:
            distance = data[end] & 0x7F
            while data[end] & 0x80:
                end += 1
                distance = (distance + 1) << 7 | data[end] & 0x7F
            base: int | bytes = distance
            end += 1
        case kind if kind == REF_DELTA:
            base = data[end : end + id_length]
            end += id_length
        case _:
            return _Entry(stored_size, stored_size, None)
    delta = zlib.decompressobj().decompress(data[end:], 32)
    _, end = _little_endian(delta, 0)
    size, _ = _little_endian(delta, end)
    return _Entry(size, stored_size, base)


def _little_endian(data: bytes, start: int, first_bits: int = 7) -> tuple[int, int]:
    """A number in groups of seven bits, of `first_bits` in its first byte, and where it ends."""
    value, shift = data[start] & ((1 << first_bits) - 1), first_bits
    while data[start] & 0x80:
        start += 1
        value |= (data[start] & 0x7F) << shift
        shift += 7
    return value, start + 1


@contextmanager
def open_objects(files: Mapping[str, SourceFile], object_format: ObjectFormat, scratch: Path) -> Iterator[GitObjects]:
    """Open a repository's objects.

    Args:
        files: By path below the repository.
        object_format: How its objects are hashed.
        scratch: Takes packs that are not files of this machine: dulwich maps packs into memory, and
            would read any other as a whole.
    """
    with ExitStack() as stack:
        packs: list[_OpenPack] = []
        for path, file in sorted(files.items()):
            if not (path.startswith("objects/pack/") and path.endswith(".idx")):
                continue
            data_file = files.get(path.removesuffix(".idx") + ".pack")
            if data_file is None:
                continue
            index_stream = stack.enter_context(_mappable(file, scratch))
            stream = stack.enter_context(_mappable(data_file, scratch))
            with reporting_git_damage(path):
                try:
                    index = load_pack_index_file(path, cast(IO[bytes], index_stream), object_format)
                except BaseException:
                    index_stream.close()  # or dulwich warns of it
                    raise
                load = partial(PackData, path, object_format, file=stream, delta_base_cache_limit=_DELTA_CACHE_BYTES)
                pack = stack.enter_context(Pack.from_lazy_objects(load, partial(_same, index)))
                len(pack.data)  # opens it, and checks that the two belong together
                packs.append(_OpenPack(pack, stream, {}))
        yield GitObjects(files, packs, object_format)


def _same(index: PackIndex) -> PackIndex:
    return index


@contextmanager
def _mappable(file: SourceFile, scratch: Path) -> Iterator[BinaryIO]:
    stream = file.open()
    try:
        stream.fileno()
    except (OSError, AttributeError):
        scratch.mkdir(parents=True, exist_ok=True)
        copy = scratch / PurePosixPath(file.relative_path).name
        with stream, copy.open("wb") as target:
            shutil.copyfileobj(stream, target, 1 << 20)
        stream = copy.open("rb")
    with stream:
        yield stream
