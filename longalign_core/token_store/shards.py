"""One shard of a token store: an Arrow stream of ragged sequences, written a batch at a time.

A stream, not an Arrow file with a footer: `datasets` maps only streams into memory. Where each of its
batches begins is kept in the store's index, so that any of them is reached without reading the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from longalign_core.errors import DataError

TokenType = Literal["uint16", "uint32"]

# A batch ends with either: few long sequences are in memory, many short ones share its header of 500 bytes.
_BATCH_TOKENS, _BATCH_SEQUENCES = 1 << 20, 1_024
# A stream is a message after another: the schema, each batch, and this.
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_NOT_TRAINED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What a token store's index says of a shard.

    Attributes:
        name: Its file.
        sha256: Of the file, in hex.
        num_bytes: Size of the file.
        num_sequences: Sequences in it, at least one.
        num_tokens: Their tokens.
        largest_token_id: Of them all.
        batch_sequences: Sequences in each of its batches.
        batch_offsets: Byte of the file at which each batch begins.
    """

    name: str
    sha256: str
    num_bytes: int
    num_sequences: int
    num_tokens: int
    largest_token_id: int
    batch_sequences: tuple[int, ...]
    batch_offsets: tuple[int, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Shard:
        """The shard that was written as JSON; raises TypeError where fields are missing or others are there."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**fields)


def shard_name(number: int) -> str:
    """File of a shard, by a number that rises with the sequences in it."""
    return f"tokens-{number:05d}.arrow"


def token_type(vocabulary: int) -> TokenType:
    """The narrowest type that Arrow, `datasets` and torch know for token ids below `vocabulary`."""
    return "uint16" if vocabulary <= 1 << 16 else "uint32"


def shard_schema(tokens: TokenType) -> pa.Schema:
    """Columns of a shard: `input_ids`, and `target_spans`, the start and end of each span of targets in turn."""
    return pa.schema([("input_ids", pa.list_(_arrow_type(tokens))), ("target_spans", pa.list_(pa.uint32()))])


def make_batch(
    tokens: TokenType,
    token_ids: NDArray[np.integer],
    token_ends: NDArray[np.integer],
    spans: NDArray[np.integer],
    span_ends: NDArray[np.integer],
) -> pa.RecordBatch:
    """Lay out S sequences as a batch of a shard.

    Args:
        tokens: Type of the token ids.
        token_ids: Of all sequences, one after the other.
        token_ends: Where each sequence ends in `token_ids`, shape (S,).
        spans: Starts and ends of the spans of targets, in turn, counted within their sequence.
        span_ends: Where each sequence's end in `spans`, shape (S,).
    """
    columns = [
        pa.ListArray.from_arrays(_offsets(token_ends), pa.array(token_ids, _arrow_type(tokens))),
        pa.ListArray.from_arrays(_offsets(span_ends), pa.array(spans, pa.uint32())),
    ]
    return pa.record_batch(columns, shard_schema(tokens))


class ShardWriter:
    """Writes a shard that appears under its name only when whole. Memory holds one batch.

    Args:
        path: The file.
        tokens: Type of its token ids.
    """

    def __init__(self, path: Path, tokens: TokenType) -> None:
        self.num_sequences = self.num_tokens = self._num_bytes = 0
        self._path, self._tokens = path, tokens
        self._largest = 0
        self._ids: list[NDArray[np.integer]] = []
        self._spans: list[NDArray[np.integer]] = []
        self._held_tokens = 0
        self._batches: list[tuple[int, int]] = []
        self._unfinished = path.with_name(f"{path.name}.part")
        self._sha256 = hashlib.sha256()
        self._file = self._unfinished.open("wb")
        self._put(shard_schema(tokens).serialize())

    def append(self, token_ids: NDArray[np.integer], is_target: NDArray[np.bool_]) -> None:
        """Add a sequence; see `TokenStoreWriter.append`."""
        assert len(token_ids) and token_ids.shape == is_target.shape and token_ids.ndim == 1
        assert token_ids.min() >= 0 and token_ids.max() <= np.iinfo(self._tokens).max
        assert not is_target[0], "nothing stands before a first token to predict it from"
        # The mask changes value at the starts and ends of its spans, in turn.
        self._spans.append(np.flatnonzero(np.diff(is_target, prepend=False, append=False)))
        # A copy, for the caller may use its array again; and of a quarter of the size.
        self._ids.append(token_ids.astype(self._tokens))
        self._held_tokens += len(token_ids)
        self.num_sequences += 1
        self.num_tokens += len(token_ids)
        if self._held_tokens >= _BATCH_TOKENS or len(self._ids) == _BATCH_SEQUENCES:
            self._flush()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Add many sequences that were laid out by `make_batch`, none of them empty."""
        self._flush()
        self._write(batch)
        self.num_sequences += batch.num_rows
        self.num_tokens += len(batch.column(0).values)

    def close(self) -> Shard:
        """Give the shard its name. Nothing can be added afterwards."""
        self._flush()
        self._put(_END_OF_STREAM)
        self._file.close()
        self._unfinished.replace(self._path)
        return Shard(
            name=self._path.name,
            sha256=self._sha256.hexdigest(),
            num_bytes=self._num_bytes,
            num_sequences=self.num_sequences,
            num_tokens=self.num_tokens,
            largest_token_id=self._largest,
            batch_sequences=tuple(rows for rows, _ in self._batches),
            batch_offsets=tuple(offset for _, offset in self._batches),
        )

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._unfinished.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._ids:
            return
        held, spans = self._ids, self._spans
        self._ids, self._spans, self._held_tokens = [], [], 0
        self._write(
            make_batch(
                self._tokens,
                np.concatenate(held),
                np.cumsum([len(one) for one in held]),
                np.concatenate(spans),
                np.cumsum([len(one) for one in spans]),
            )
        )

    def _write(self, batch: pa.RecordBatch) -> None:
        self._batches.append((batch.num_rows, self._num_bytes))
        self._put(batch.serialize())
        self._largest = max(self._largest, int(batch.column(0).values.to_numpy().max(initial=0)))

    def _put(self, message: pa.Buffer | bytes) -> None:
        self._sha256.update(message)
        self._num_bytes += self._file.write(message)


@dataclass(frozen=True, slots=True)
class ShardBatch:
    """A batch of S sequences of a shard, memory-mapped.

    Attributes:
        token_ids: Of all sequences, one after the other.
        token_bounds: Where each begins, and the end of the last, shape (S + 1,).
        spans: Starts and ends of the spans of targets, in turn.
        span_bounds: Where each sequence's begin, and the end of the last, shape (S + 1,).
    """

    token_ids: NDArray[np.integer]
    token_bounds: NDArray[np.int32]
    spans: NDArray[np.uint32]
    span_bounds: NDArray[np.int32]


def read_batch(shard: pa.Buffer, offset: int, tokens: TokenType, name: str) -> ShardBatch:
    """The batch that begins at a byte of a shard.

    Raises:
        DataError: No batch of this type begins there.
    """
    try:
        message = pa.ipc.read_message(pa.BufferReader(shard.slice(offset)))
        batch = pa.ipc.read_record_batch(message, shard_schema(tokens))
        batch.validate()
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise DataError(f"{name} of the token store is damaged at byte {offset:,}; fetch it again") from error
    ids, spans = batch.columns
    return ShardBatch(ids.values.to_numpy(), ids.offsets.to_numpy(), spans.values.to_numpy(), spans.offsets.to_numpy())


def with_labels(rows: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, list[list[int]]]:
    """Rows of a shard as a trainer of another library takes them, for `Dataset.with_transform` or `map`.

    Args:
        rows: Columns of several rows.

    Returns:
        `input_ids`, and `labels` that are -100 where nothing is trained. Not shifted: the label of a
        position is its own token, as transformers has it.
    """
    labels = []
    for ids, spans in zip(rows["input_ids"], rows["target_spans"], strict=True):
        row = [_NOT_TRAINED] * len(ids)
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            row[start:end] = ids[start:end]
        labels.append(row)
    return {"input_ids": [list(ids) for ids in rows["input_ids"]], "labels": labels}


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _arrow_type(tokens: TokenType) -> pa.DataType:
    return pa.uint16() if tokens == "uint16" else pa.uint32()


def _offsets(ends: NDArray[np.integer]) -> pa.Array:
    return pa.array(np.concatenate([[0], ends]), pa.int32())
