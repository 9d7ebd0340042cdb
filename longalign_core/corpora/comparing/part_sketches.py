"""Sketches of the documents of one part file, written beside one another so that no text is read again.

For each part a table with a row a document, and, to find containment, the samples of all its
documents in one rising array, so that those of a range of hashes lie together on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from longalign_core.config.cleaning import CleaningConfig
from longalign_core.corpora.comparing.contamination import Protection, read_protected
from longalign_core.corpora.comparing.duplicates import DIGEST_BYTES, text_digest
from longalign_core.corpora.comparing.minhash import NUM_BINS, sketch
from longalign_core.word_hashes import Hashes

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("digest", pa.binary(DIGEST_BYTES)),
        ("length", pa.int64()),
        ("num_samples", pa.int64()),
        ("signature", pa.binary(2 * NUM_BINS)),
        ("contamination", pa.string()),
    ]
)
_DOCUMENTS_AT_ONCE = 4
_ROWS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class SketchJob:
    """A part file to be sketched.

    Attributes:
        documents: The part file.
        table: Where its table goes; the samples go beside it. A table that is there is used.
        config: What is looked for.
        protected: File of protected texts; None where nothing is protected.
    """

    documents: Path
    table: Path
    config: CleaningConfig
    protected: Path | None


def sketch_part(job: SketchJob) -> int:
    """Sketch the documents of a part file, or find it done. Returns how many there are.

    Memory holds one batch of documents, and about 1 KiB and a thirtieth of the text for each document.
    """
    if job.table.exists():
        return int(pq.read_metadata(job.table).num_rows)
    job.table.parent.mkdir(parents=True, exist_ok=True)
    unfinished = job.table.with_suffix(".part")
    samples: list[Hashes] = []
    rows: list[dict[str, str | bytes | int | None]] = []
    count = 0
    with pq.ParquetWriter(unfinished, SCHEMA, compression="none", use_dictionary=["source"]) as writer:
        for document_id, source, text in _texts(job.documents):
            row, sampled = _sketched(text, job)
            rows.append({"id": document_id, "source": source, **row})
            samples.append(sampled)
            count += 1
            if len(rows) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    if job.config.containment is not None:
        _write_samples(job.table, samples)
    unfinished.replace(job.table)
    return count


def samples_of(table: Path) -> tuple[Hashes, NDArray[np.uint32]]:
    """The samples of a part, rising, and the row of each one's document; mapped, not read."""
    hashes, rows = _sample_files(table)
    return np.load(hashes, mmap_mode="r"), np.load(rows, mmap_mode="r")


def _texts(file: Path) -> Iterator[tuple[str, str, str]]:
    for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(
        _DOCUMENTS_AT_ONCE, columns=["id", "source", "text"]
    ):
        for row in range(batch.num_rows):
            yield batch["id"][row].as_py(), batch["source"][row].as_py(), batch["text"][row].as_py()


def _sketched(text: str, job: SketchJob) -> tuple[dict[str, str | bytes | int | None], Hashes]:
    config = job.config
    row: dict[str, str | bytes | int | None] = {"length": 0, "num_samples": 0}
    samples = np.empty(0, np.uint64)
    if config.exact_duplicates:
        row["digest"] = text_digest(text)
    if config.near_duplicates is not None or config.containment is not None:
        found = sketch(text)
        samples = found.samples
        row |= {"length": found.length, "num_samples": len(samples), "signature": found.signature.tobytes()}
    if job.protected is not None:
        contamination = _protection(job.protected, config.decontamination_share).find(text)
        row["contamination"] = None if contamination is None else contamination.detail
    return row, samples


@lru_cache(maxsize=1)
def _protection(file: Path, share: float) -> Protection:
    return Protection(read_protected(file), share)


def _write_samples(table: Path, samples: list[Hashes]) -> None:
    hashes = np.concatenate([np.empty(0, np.uint64), *samples])
    rows = np.repeat(np.arange(len(samples), dtype=np.uint32), [len(one) for one in samples])
    order = np.argsort(hashes, kind="stable")
    for file, content in zip(_sample_files(table), (hashes[order], rows[order]), strict=True):
        np.save(file, content)


def _sample_files(table: Path) -> tuple[Path, Path]:
    return table.with_suffix(".hashes.npy"), table.with_suffix(".rows.npy")
