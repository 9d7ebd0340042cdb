"""One shard of a corpus: some units, read and cleaned into parquet parts, resumable at every part.

What is written depends on the units alone: parts end where their content says, never at a time or
at a kill, so every engine, number of workers and way of being interrupted gives the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from longalign_core.config.corpus_formats import CorpusConfig
from longalign_core.corpora.cleaning import finish_document
from longalign_core.corpora.readers import read_unit
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.record_files import RecordWriter
from longalign_core.records import Document, Reject

SHARD_BYTES = 128 << 20
MAX_SHARDS = 400
PART_CHARACTERS = 64 << 20
PART_RECORDS = 50_000
SHORT_BATCH = 8_192
GROUP_RECORDS, GROUP_CHARACTERS = 1_024, 2 << 20
"""A row group of documents ends with either: few of long texts are in memory, many of short ones in a group."""
_STATE = "state.json"


_Placed = tuple[Document | Reject | None, int, int, bool]


@dataclass(frozen=True, slots=True)
class ShardJob:
    """A shard to be read.

    Attributes:
        number: Place among the corpus's shards, from 0.
        units: What it reads, in order.
        config: The corpus.
        folder: Its own folder, which all workers see; what a killed one left there is gone on with.
        part_characters: A part ends when its documents have so many.
    """

    number: int
    units: tuple[Unit, ...]
    config: CorpusConfig
    folder: Path
    part_characters: int = PART_CHARACTERS


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """How far a shard has come. Everything before is in its parts.

    Attributes:
        num_units: Units read to their end.
        position: Where the next unit goes on; see `Cursor`.
        num_parts: Parts written.
        num_documents: In them.
        num_rejects: In them.
        num_bytes: Stored size of the units read.
        is_done: Whether there is nothing left to read.
    """

    num_units: int = 0
    position: int = 0
    num_parts: int = 0
    num_documents: int = 0
    num_rejects: int = 0
    num_bytes: int = 0
    is_done: bool = False


def plan_shards(
    units: Iterable[Unit], config: CorpusConfig, folder: Path, *, shard_bytes: int = SHARD_BYTES
) -> list[ShardJob]:
    """Put units together, in their order, until a shard is worth a worker. Depends on the units alone.

    A unit that names no files, as its reader fetches them, is taken to be worth one by itself.
    """
    sizes = [(unit, unit.num_bytes if unit.files else shard_bytes) for unit in units]
    enough = max(shard_bytes, sum(size for _, size in sizes) // MAX_SHARDS)
    groups: list[list[Unit]] = []
    filled = enough
    for unit, size in sizes:
        if filled >= enough:
            groups.append([])
            filled = 0
        groups[-1].append(unit)
        filled += size
    return [ShardJob(number, tuple(group), config, folder / f"{number:05d}") for number, group in enumerate(groups)]


def read_shard(job: ShardJob) -> ShardState:
    """Read a shard to its end, or to `max_documents`, from where an earlier try left it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    state = shard_state(job.folder)
    records = _records(job, state)  # one reading for all parts: to begin anew at each would skip ever more
    while not state.is_done:
        state = _write_part(job, state, records)
        _save(job.folder, state)
    return state


def shard_state(folder: Path) -> ShardState:
    """What a shard's folder says of it; the beginning where it says nothing."""
    try:
        return ShardState(**orjson.loads((folder / _STATE).read_bytes()))
    except FileNotFoundError:
        return ShardState()


def part_file(folder: Path, kind: str, part: int) -> Path:
    """File of a part: `kind` is "documents" or "rejects"."""
    return folder / f"{kind}-{part:05d}.parquet"


def _write_part(job: ShardJob, state: ShardState, records: Iterator[_Placed]) -> ShardState:
    """Write what comes next, up to where a part may end."""
    part, limit = state.num_parts, job.config.max_documents
    num_units, position, is_done = state.num_units, state.position, False
    num_characters = 0
    with (
        RecordWriter(
            part_file(job.folder, "documents", part),
            Document,
            GROUP_RECORDS,
            weigh=lambda document: len(document.text),
            enough=GROUP_CHARACTERS,
        ) as documents,
        RecordWriter(part_file(job.folder, "rejects", part), Reject, SHORT_BATCH) as rejects,
    ):
        for record, num_units, position, can_end in records:  # noqa: B007 -- read after the loop
            if isinstance(record, Document):
                documents.write(record)
                num_characters += len(record.text)
            elif record is not None:
                rejects.write(record)
            if limit is not None and state.num_documents + documents.num_records >= limit:
                is_done = True
                break
            num_records = documents.num_records + rejects.num_records
            if can_end and (num_characters >= job.part_characters or num_records >= PART_RECORDS):
                break
    return ShardState(
        num_units=num_units,
        position=position,
        num_parts=part + 1,
        num_documents=state.num_documents + documents.num_records,
        num_rejects=state.num_rejects + rejects.num_records,
        num_bytes=sum(unit.num_bytes for unit in job.units[:num_units]),
        is_done=is_done or num_units == len(job.units),
    )


def _records(job: ShardJob, state: ShardState) -> Iterator[_Placed]:
    """What is left of a shard.

    Each record comes with the place behind it (units read, position in the next) and whether reading
    can go on there. None stands for the end of a unit.
    """
    position = state.position
    for index in range(state.num_units, len(job.units)):
        scratch = job.folder / f"unit-{index:05d}"
        cursor = Cursor(scratch, position)
        for raw in read_unit(job.units[index], job.config, cursor):
            record = finish_document(job.config, raw) if isinstance(raw, RawDocument) else raw
            yield record, index, cursor.position, cursor.position != position
            position = cursor.position
        position = 0
        shutil.rmtree(scratch, ignore_errors=True)
        yield None, index + 1, 0, True


def _save(folder: Path, state: ShardState) -> None:
    unfinished = folder / f"{_STATE}.part"
    unfinished.write_bytes(orjson.dumps(asdict(state)))
    unfinished.replace(folder / _STATE)
