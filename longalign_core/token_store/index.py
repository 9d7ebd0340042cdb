"""The index of a token store: what files it has, how large, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from longalign_core.errors import DataError
from longalign_core.token_store.shards import Shard, ShardBatch, TokenType, digest, read_batch

INDEX = "token_store.json"
LENGTHS, TARGETS = "lengths.npy", "targets.npy"
SCHEMA = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFile:
    """A file of a token store: its size in bytes, and the sha256 of its content in hex."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIndex:
    """What is in a token store.

    Attributes:
        tokens: Type of its token ids.
        shards: In the order of their sequences.
        arrays: `lengths.npy` and `targets.npy`.
    """

    tokens: TokenType
    shards: tuple[Shard, ...]
    arrays: tuple[StoreFile, ...]

    @property
    def num_sequences(self) -> int:
        """Sequences of all shards."""
        return sum(shard.num_sequences for shard in self.shards)

    @property
    def files(self) -> tuple[Shard | StoreFile, ...]:
        """All files but the index."""
        return (*self.shards, *self.arrays)


def seal(folder: Path, tokens: TokenType, shards: Sequence[Shard]) -> None:
    """Make finished shards in a folder a token store. Other shards there, whole or not, are removed.

    Args:
        folder: Holds the shards.
        tokens: Type of their token ids.
        shards: In the order of their sequences.
    """
    (folder / INDEX).unlink(missing_ok=True)
    names = {shard.name for shard in shards}
    for stray in folder.glob("tokens-*.arrow*"):
        if stray.name not in names:
            stray.unlink()
    num_sequences = sum(shard.num_sequences for shard in shards)
    lengths, targets = (_new_array(folder / name, num_sequences) for name in (LENGTHS, TARGETS))
    start = 0
    for batch in _batches(folder, tokens, shards):
        end = start + len(batch.token_bounds) - 1
        lengths[start:end] = np.diff(batch.token_bounds)
        widths = batch.spans[1::2].astype(np.int64) - batch.spans[::2]
        targets[start:end] = np.diff(np.concatenate([[0], np.cumsum(widths)])[batch.span_bounds // 2])
        start = end
    del lengths, targets  # what was written through the maps is in the files when these are gone
    arrays = tuple(
        StoreFile(name=name, num_bytes=(folder / name).stat().st_size, sha256=digest(folder / name))
        for name in (LENGTHS, TARGETS)
    )
    index = StoreIndex(tokens=tokens, shards=tuple(shards), arrays=arrays)
    unfinished = folder / f"{INDEX}.part"
    unfinished.write_bytes(
        orjson.dumps({"schema": SCHEMA, **asdict(index)}, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    )
    unfinished.replace(folder / INDEX)


def read_index(folder: Path) -> StoreIndex:
    """The index of a folder, whose files are all there and as large as it says.

    Raises:
        DataError: The folder holds no whole token store, or one of another schema.
    """
    file = folder / INDEX
    if not file.is_file():
        raise DataError(f"{folder.name} has no {INDEX}, so it is no whole token store; run `encode` again")
    try:
        values = orjson.loads(file.read_bytes())
        if (schema := values.pop("schema")) == SCHEMA:
            index = _parse(values)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{INDEX} in {folder.name} is damaged; fetch it again, or run `encode` again") from error
    if schema != SCHEMA:
        raise DataError(
            f"the token store in {folder.name} has schema {schema}, this version reads {SCHEMA}; "
            "run `encode` again or use the version that wrote it"
        )
    for one in index.files:
        path = folder / one.name
        size = path.stat().st_size if path.is_file() else None
        if size != one.num_bytes:
            found = "is missing" if size is None else f"has {size:,} bytes instead of {one.num_bytes:,}"
            raise DataError(f"{one.name} of the token store in {folder.name} {found}; fetch it again")
    return index


def map_shard(folder: Path, shard: Shard) -> pa.Buffer:
    """A shard's bytes, memory-mapped for as long as something made of them is in use."""
    with pa.memory_map(str(folder / shard.name)) as file:
        return file.read_buffer()


def _parse(values: dict[str, Any]) -> StoreIndex:
    if values["tokens"] not in get_args(TokenType):
        raise ValueError(values["tokens"])
    return StoreIndex(
        tokens=values["tokens"],
        shards=tuple(Shard.of(shard) for shard in values["shards"]),
        arrays=tuple(StoreFile(**array) for array in values["arrays"]),
    )


def _batches(folder: Path, tokens: TokenType, shards: Sequence[Shard]) -> Iterator[ShardBatch]:
    for shard in shards:
        mapped = map_shard(folder, shard)
        for offset in shard.batch_offsets:
            yield read_batch(mapped, offset, tokens, shard.name)


def _new_array(path: Path, size: int) -> NDArray[np.int64]:
    """Eight bytes a number, where four would hold it: squares and sums of them are taken everywhere."""
    path.unlink(missing_ok=True)
    if not size:  # an empty file cannot be mapped
        np.save(path, np.zeros(0, dtype="<i8"))
        return np.zeros(0, dtype=np.int64)
    return np.lib.format.open_memmap(path, mode="w+", dtype="<i8", shape=(size,))
