"""Read a token store: what is asked for comes from the disk, nothing else."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from longalign_core.errors import DataError
from longalign_core.token_store.index import LENGTHS, TARGETS, StoreIndex, map_shard, read_index
from longalign_core.token_store.shards import ShardBatch, digest, read_batch

_SHARDS_OPEN, _BATCHES_OPEN = 64, 64


class TokenStore:
    """A token store opened for reading. It stays on disk: opening reads the index alone.

    Attributes:
        lengths: Tokens per sequence, shape (S,), memory-mapped, read-only.
        targets: Tokens per sequence that the model is trained to predict, likewise.
    """

    def __init__(self, folder: Path, index: StoreIndex) -> None:
        self._folder, self._index = folder, index
        self.lengths, self.targets = (_open_array(folder, name, index.num_sequences) for name in (LENGTHS, TARGETS))
        sizes = [size for shard in index.shards for size in shard.batch_sequences]
        self._batch_ends = np.cumsum(sizes, dtype=np.int64)
        self._places = [(number, at) for number, shard in enumerate(index.shards) for at in shard.batch_offsets]
        self._shard = lru_cache(maxsize=_SHARDS_OPEN)(self._map_shard)
        self._batch = lru_cache(maxsize=_BATCHES_OPEN)(self._read_batch)

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Open the store in `folder`. That its files are whole is checked by their sizes; see `verify`.

        Raises:
            DataError: The folder holds no whole token store, or one of another schema.
        """
        return cls(folder, read_index(folder))

    @property
    def num_sequences(self) -> int:
        """Number of sequences; they are counted from 0."""
        return len(self.lengths)

    @property
    def num_bytes(self) -> int:
        """Size of the files that hold it, but for the index."""
        return sum(one.num_bytes for one in self._index.files)

    @property
    def largest_token_id(self) -> int:
        """Largest token id of all sequences; 0 in an empty store."""
        return max((shard.largest_token_id for shard in self._index.shards), default=0)

    def sequence(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Token ids and target mask of one sequence, both of shape (lengths[index],).

        Raises:
            DataError: Its shard is damaged so that it cannot be read.
        """
        assert 0 <= index < self.num_sequences, f"sequence {index} of {self.num_sequences}"
        number = int(np.searchsorted(self._batch_ends, index, side="right"))
        batch = self._batch(number)
        row = index - int(self._batch_ends[number]) + len(batch.token_bounds) - 1
        token_ids = batch.token_ids[batch.token_bounds[row] : batch.token_bounds[row + 1]].astype(np.int64)
        is_target = np.zeros(len(token_ids), dtype=np.bool_)
        for start, end in batch.spans[batch.span_bounds[row] : batch.span_bounds[row + 1]].reshape(-1, 2):
            is_target[start:end] = True
        return token_ids, is_target

    def verify(self) -> None:
        """Read every file and compare its content with the index.

        Raises:
            DataError: A file is not what was written.
        """
        for one in self._index.files:
            if digest(self._folder / one.name) != one.sha256:
                raise DataError(
                    f"{one.name} of the token store in {self._folder.name} is damaged: its sha256 is not the one "
                    "in the index; fetch it again, or run `encode` again"
                )

    def _map_shard(self, number: int) -> pa.Buffer:
        return map_shard(self._folder, self._index.shards[number])

    def _read_batch(self, number: int) -> ShardBatch:
        shard, offset = self._places[number]
        return read_batch(self._shard(shard), offset, self._index.tokens, self._index.shards[shard].name)


def _open_array(folder: Path, name: str, size: int) -> NDArray[np.int64]:
    """Memory-map an array, or read it where that cannot be done: an empty one."""
    try:
        # As a plain array: the class of a mapped one would go on to everything computed from it.
        array: NDArray[np.int64] = np.asarray(np.load(folder / name, mmap_mode="r" if size else None))
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{name} of the token store in {folder.name} is damaged; fetch it again") from error
    if array.shape != (size,) or array.dtype != np.dtype("<i8"):
        raise DataError(f"{name} of the token store in {folder.name} is not the one that was written; fetch it again")
    return array
