"""A range of conversations to one shard of a token store, in whatever process works on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pyarrow.parquet as pq

from longalign_core.config.batching import EncodingConfig
from longalign_core.errors import DataError
from longalign_core.record_files import in_groups, read_records, write_records
from longalign_core.records import Conversation, Reject
from longalign_core.token_store import SequenceRow, Shard, ShardWriter, shard_name, token_type
from longalign_core.token_store.shards import digest

if TYPE_CHECKING:
    from longalign_core.chat_format import ChatFormat

RANGE_BYTES = 64 << 20
MAX_RANGES = 400
# Encodings take about 200 bytes a character while they are in memory.
_CHARACTERS_AT_ONCE = 1_000_000
_BATCH = 8_192


@dataclass(frozen=True, slots=True)
class RangeJob:
    """Conversations that become one shard.

    Attributes:
        number: Place among the ranges, from 0.
        conversations: Their parquet file.
        row_groups: Those of its row groups that hold them.
        config: How they are encoded.
        tokenizer: Folder of the tokenizer.
        vocabulary: Its token ids are below.
        out_dir: Where the shard goes.
        num_processes: So many ranges are encoded at the same time.
    """

    number: int
    conversations: Path
    row_groups: tuple[int, ...]
    config: EncodingConfig
    tokenizer: Path
    vocabulary: int
    out_dir: Path
    num_processes: int

    @property
    def sequences(self) -> Path:
        """What it encoded, a `SequenceRow` each, numbered within the range."""
        return self._aside("sequences.parquet")

    @property
    def rejects(self) -> Path:
        """What it could not."""
        return self._aside("rejects.parquet")

    @property
    def done(self) -> Path:
        """Written last: the range as the index of the store will have it."""
        return self._aside("done.json")

    def _aside(self, name: str) -> Path:
        return self.out_dir / ".ranges" / f"{self.number:05d}-{name}"


def plan_ranges(conversations: Path, *, range_bytes: int = RANGE_BYTES) -> list[tuple[int, ...]]:
    """Put row groups of a parquet file together until a range is worth a shard. Depends on the file alone."""
    metadata = pq.read_metadata(conversations)
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    enough = max(range_bytes, sum(sizes) // MAX_RANGES)
    groups = in_groups(range(len(sizes)), sizes.__getitem__, enough)
    return [tuple(group) for group in groups]


def encode_range(job: RangeJob) -> Shard | None:
    """Encode a range, unless an earlier try finished it.

    Returns:
        Its shard; None when no conversation of it could be encoded.
    """
    if not _is_finished(job):
        _encode_range(job)
    return _shard(job)


def load_format(tokenizer: Path, template: str | None) -> ChatFormat:
    """A chat format, kept for the next range of this process while the tokenizer's files stay as they are."""
    # Workers of a cluster live on from run to run, and another tokenizer may lie under the path by then.
    stamps = ((file, file.stat()) for file in sorted(tokenizer.rglob("*")) if file.is_file())
    return _load_format(tokenizer, template, tuple((str(file), at.st_size, at.st_mtime_ns) for file, at in stamps))


@lru_cache(maxsize=1)
def _load_format(tokenizer: Path, template: str | None, stamps: tuple[tuple[str, int, int], ...]) -> ChatFormat:
    from longalign_core.chat_format import ChatFormat

    return ChatFormat.load(tokenizer, template)


def _encode_range(job: RangeJob) -> None:
    if job.num_processes > 1:  # else each process would start a thread for every core
        os.environ.setdefault("RAYON_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // job.num_processes)))
    job.done.parent.mkdir(parents=True, exist_ok=True)
    job.done.unlink(missing_ok=True)
    rejects: list[Reject] = []
    writer = ShardWriter(job.out_dir / shard_name(job.number), token_type(job.vocabulary))
    write_records(job.sequences, _encode(job, writer, rejects), SequenceRow, batch=_BATCH)
    write_records(job.rejects, rejects, Reject, batch=_BATCH)
    shard = None
    if writer.num_sequences:
        shard = writer.close()
    else:
        writer.abandon()
    unfinished = job.done.with_suffix(".part")
    unfinished.write_bytes(orjson.dumps(shard))
    unfinished.replace(job.done)


def _shard(job: RangeJob) -> Shard | None:
    values = orjson.loads(job.done.read_bytes())
    return None if values is None else Shard.of(values)


def _is_finished(job: RangeJob) -> bool:
    """Whether an earlier try finished the range, and its shard still is what was written."""
    if not job.done.is_file():
        return False
    shard = _shard(job)
    if shard is None:
        return True
    file = job.out_dir / shard.name
    return file.is_file() and digest(file) == shard.sha256


def _encode(job: RangeJob, writer: ShardWriter, rejects: list[Reject]) -> Iterator[SequenceRow]:
    """Encode and store conversations as they come; those that cannot be go to `rejects`."""
    chat_format = load_format(job.tokenizer, job.config.template)
    conversations = read_records(job.conversations, Conversation, row_groups=job.row_groups)
    for group in in_groups(conversations, _num_characters, _CHARACTERS_AT_ONCE):
        results = chat_format.encode(group, job.config.max_tokens, job.config.shorten)
        for conversation, result in zip(group, results, strict=True):
            if isinstance(result, DataError):
                rejects.append(
                    Reject(
                        id=conversation.id,
                        source=conversation.source,
                        stage="encode",
                        reason=result.reason,
                        detail=str(result),
                    )
                )
                continue
            number = writer.num_sequences
            writer.append(result.token_ids, result.is_target)
            yield SequenceRow(
                sequence=number,
                conversation_id=conversation.id,
                document_id=conversation.document_id,
                source=conversation.source,
                length=len(result.token_ids),
                targets=int(result.is_target.sum()),
                cut_tokens=result.cut_tokens,
            )


def _num_characters(conversation: Conversation) -> int:
    return sum(len(message.content) for message in conversation.messages)
