"""One reader over one location in a process of its own: how fast, and how much memory at the most.

Run as `python -m benchmarks.ingest_probe read|shard '{"format": …, "location": …}'`; prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from benchmarks.measuring import peak_memory_mb
from longalign_core.config.corpora import Corpus
from longalign_core.config.corpus_formats import CorpusConfig
from longalign_core.corpora.readers import READERS
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.records import Reject
from longalign_core.source_files import list_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a reader did.

    Attributes:
        documents: Made.
        rejects: Made.
        text_bytes: Of the documents, in UTF-8; of parquet parts for a shard.
        stored_bytes: Of what was read.
        seconds: Imports not included.
        peak_mb: Largest resident memory of the process, imports included.
    """

    documents: int
    rejects: int
    text_bytes: int
    stored_bytes: int
    seconds: float
    peak_mb: float


def corpus(**fields: object) -> CorpusConfig:
    """A corpus of the recipe."""
    return TypeAdapter(Corpus).validate_python({"name": "benchmark", **fields})


def units_of(config: CorpusConfig) -> list[Unit]:
    """What its reader reads."""
    files = list_files(config.location).files
    return [unit for unit in READERS[config.format].units(files, config) if isinstance(unit, Unit)]


def read_units(config: CorpusConfig) -> Iterator[RawDocument | Reject]:
    """The reader alone: neither cleaning nor writing."""
    with tempfile.TemporaryDirectory() as scratch:
        for index, unit in enumerate(units_of(config)):
            yield from READERS[config.format].read(unit, config, Cursor(Path(scratch) / str(index)))


def probe(what: Literal["read", "shard"], fields: Mapping[str, object]) -> Probe:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ingest_probe", what, json.dumps(fields)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)
    if done.returncode:
        raise SystemExit(f"the {what} of {fields} failed:\n{done.stderr[-2000:]}")
    return Probe(**json.loads(done.stdout.splitlines()[-1]))


def measure(what: Literal["read", "shard"], config: CorpusConfig) -> Probe:
    """Measure in this process."""
    stored = sum(unit.num_bytes for unit in units_of(config))
    start = time.perf_counter()
    documents, rejects, text_bytes = _read(config) if what == "read" else _write_shard(config)
    return Probe(
        documents=documents,
        rejects=rejects,
        text_bytes=text_bytes,
        stored_bytes=stored,
        seconds=time.perf_counter() - start,
        peak_mb=peak_memory_mb(),
    )


def _read(config: CorpusConfig) -> tuple[int, int, int]:
    documents = rejects = text_bytes = 0
    for record in read_units(config):
        if isinstance(record, RawDocument):
            documents += 1
            text_bytes += len(record.text.encode("utf-8", "replace"))
        else:
            rejects += 1
    return documents, rejects, text_bytes


def _write_shard(config: CorpusConfig) -> tuple[int, int, int]:
    from longalign_core.corpora.shards import ShardJob, read_shard

    with tempfile.TemporaryDirectory() as folder:
        state = read_shard(ShardJob(0, tuple(units_of(config)), config, Path(folder)))
        written = sum(file.stat().st_size for file in Path(folder).glob("documents-*.parquet"))
    return state.num_documents, state.num_rejects, written


if __name__ == "__main__":
    asked: Literal["read", "shard"] = "shard" if sys.argv[1] == "shard" else "read"
    print(json.dumps(asdict(measure(asked, corpus(**json.loads(sys.argv[2]))))))
