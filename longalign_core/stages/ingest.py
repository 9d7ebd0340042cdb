"""Stage `ingest`: one corpus from its native files to documents, read in shards."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pyarrow.parquet as pq

from longalign_core.config.corpus_formats import CorpusConfig
from longalign_core.config.runtime import Runtime
from longalign_core.engine import Engine, InProcess, current_engine
from longalign_core.errors import DataError
from longalign_core.progress import track
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Document, Reject
from longalign_core.source_files import Listing, list_files
from longalign_core.sources import pinned, source_location
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.documents import DOCUMENTS, id_hashes, read_ids
from longalign_core.stages.licences import CORPUS, NOT_REDISTRIBUTABLE
from longalign_core.stages.outcomes import LONG_BATCH, REJECTS, write_rejects

if TYPE_CHECKING:
    from longalign_core.corpora.shards import ShardJob, ShardState

log = logging.getLogger(__name__)

SMALL_BYTES = 16 << 20
"""A corpus of fewer bytes is read in this process: another takes seconds to start."""


@stage("ingest", version=2, parallel=True)
def ingest(config: CorpusConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Read one corpus: parquet parts in `documents/`, `rejects.parquet`, `corpus.json` with its licence.

    Shards are read by the runtime's engine; what a killed run finished of each is used.
    """
    from longalign_core.corpora.cleaning import reject
    from longalign_core.corpora.readers import READERS
    from longalign_core.corpora.reading import Unit
    from longalign_core.corpora.shards import plan_shards

    listing = _list(config, runtime)
    config = config.model_copy(update={"location": pinned(config.location, runtime)})
    found = list(READERS[config.format].units(listing.files, config))
    units = [one for one in found if isinstance(one, Unit)]
    strays = [one for one in found if isinstance(one, Reject)]
    strays += [reject(config, link, "link", "links and special files are not followed") for link in listing.links]
    jobs = plan_shards(units, config, out_dir.absolute() / ".shards")
    num_bytes = sum(unit.num_bytes for unit in units)
    engine: Engine = current_engine(runtime)
    if listing.files and num_bytes < SMALL_BYTES:
        engine = InProcess()
    states = _read_shards(jobs, engine, config, num_bytes)
    counts = _assemble(jobs[: len(states)], states, strays, config, out_dir)
    about = config.model_dump(include={"name", "format", "language", "licence", "redistributable"})
    (out_dir / CORPUS).write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    if not counts["documents"]:
        _refuse_other_format(counts, config, out_dir)
        log.warning("ingest: corpus %s gave no document%s", config.name, _why_none(out_dir))
    marked = {} if config.redistributable else {NOT_REDISTRIBUTABLE: config.name}
    return {**counts, "files": len(listing.files), "bytes": num_bytes, "hidden files": listing.num_hidden, **marked}


def _refuse_other_format(counts: Counts, config: CorpusConfig, out_dir: Path) -> None:
    if counts["rejects"] == counts.get("rejects: other file type"):
        first = next(iter(read_records(out_dir / REJECTS, Reject)))
        raise DataError(
            f"corpus {config.name!r} has no file of format {config.format}: {first.id} is of another type, "
            f"{first.detail}; correct its format or its location"
        )


def _why_none(out_dir: Path) -> str:
    """The commonest reason of the rejects, with the first record that has it."""
    reasons: Counter[str] = Counter()
    firsts: dict[str, Reject] = {}
    for one in read_records(out_dir / REJECTS, Reject):
        reasons[one.reason] += 1
        firsts.setdefault(one.reason, one)
    if not reasons:
        return ""
    ((reason, count),) = reasons.most_common(1)
    first = firsts[reason]
    detail = f" ({first.detail})" if first.detail else ""
    return f"; {count:,} of {reasons.total():,} rejects: {reason}, the first {first.id}{detail}"


def _list(config: CorpusConfig, runtime: Runtime) -> Listing:
    if config.format == "hub":  # the reader streams it: nothing is brought here
        return Listing((), (), 0)
    listing = list_files(source_location(config.location, runtime))
    if not listing.files:
        raise DataError(f"the location of corpus {config.name!r} holds no file; name one that does, or drop the corpus")
    return listing


def _read_shards(jobs: Sequence[ShardJob], engine: Engine, config: CorpusConfig, num_bytes: int) -> list[ShardState]:
    """States of the shards that count: all, or the first ones that have `max_documents` together."""
    from longalign_core.corpora.shards import read_shard, shard_state

    states: list[ShardState] = []
    with track(f"ingest {config.name}", total=num_bytes or None, unit="bytes") as step:
        shown = 0

        def look() -> None:
            nonlocal shown
            progress = [shard_state(job.folder) for job in jobs]
            done = sum(state.num_bytes for state in progress)
            step(done - shown, f"{sum(state.num_documents for state in progress):,} documents")
            shown = done

        for state in engine.run(read_shard, jobs, label=f"ingest {config.name}", look=look):
            states.append(state)
            if config.max_documents and sum(one.num_documents for one in states) >= config.max_documents:
                break
    return states


def _assemble(
    jobs: Sequence[ShardJob],
    states: Sequence[ShardState],
    strays: Sequence[Reject],
    config: CorpusConfig,
    out_dir: Path,
) -> Counts:
    """Put the shards' parts together; ids that come again, and documents over the limit, are left out."""
    from longalign_core.corpora.shards import part_file

    parts = [(job, part) for job, state in zip(jobs, states, strict=True) for part in range(state.num_parts)]
    files = [part_file(job.folder, "documents", part) for job, part in parts]
    again = _ids_seen_again(files)
    left = config.max_documents or sum(state.num_documents for state in states)
    num_documents, repeated = 0, []
    for (job, part), file in zip(parts, files, strict=True):
        num_rows = pq.read_metadata(file).num_rows
        skipped = again.get(file, {})
        taken = min(num_rows - len(skipped), left)
        target = out_dir / DOCUMENTS / f"{job.number:05d}-{part:05d}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if taken == num_rows:
            if taken:
                _place(file, target)
        elif taken:
            kept = (one for row, one in enumerate(read_records(file, Document, LONG_BATCH)) if row not in skipped)
            write_records(target, (one for _, one in zip(range(taken), kept, strict=False)), Document, LONG_BATCH)
        repeated += [
            Reject(id=document_id, source=config.name, stage="ingest", reason="id seen before", detail=file.name)
            for document_id in skipped.values()
        ]
        num_documents += taken
        left -= taken
    rejects = (one for job, part in parts for one in read_records(part_file(job.folder, "rejects", part), Reject))
    return {"documents": num_documents, **write_rejects(out_dir, chain(rejects, repeated, strays))}


def _place(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # a file system without links
        shutil.copyfile(file, target)


def _ids_seen_again(files: Sequence[Path]) -> dict[Path, dict[int, str]]:
    """Rows whose id an earlier row has, by file. Holds 16 bytes for each id, and the ids that may come again."""
    import numpy as np

    hashes = np.sort(np.concatenate([np.empty(0, np.uint64), *(id_hashes(file) for file in files)]))
    suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    again: dict[Path, dict[int, str]] = {}
    if not len(suspects):
        return again
    seen: set[str] = set()
    for file in files:
        is_suspect = np.isin(id_hashes(file), suspects).tolist()
        for row, (document_id, suspect) in enumerate(zip(read_ids(file), is_suspect, strict=True)):
            if suspect and document_id in seen:
                again.setdefault(file, {})[row] = document_id
            elif suspect:
                seen.add(document_id)
    return again
