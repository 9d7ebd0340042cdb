"""From read to drawn: how many records of each corpus each stage left, and why the others went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

LENGTH_EDGES = 2 ** (np.arange(4, 92) / 4)
"""Bins of lengths, in tokens: four to a doubling, so that 8k and 64k are edges."""
STEPS = ("read", "ingested", "kept", "eligible", "drawn")
_BATCH = 65_536
_REJECT_KEY = ("stage", "source", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """One corpus from read to drawn, in documents.

    Attributes:
        read: Records that were read, those rejected while reading among them.
        ingested: Documents that reading gave.
        kept: After comparison of all corpora.
        eligible: Within the range of lengths, of a corpus that is drawn from.
        drawn: In the product.
    """

    corpus: str
    read: int
    ingested: int
    kept: int
    eligible: int
    drawn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectRow:
    """How many records of a corpus a stage left out for one reason."""

    stage: str
    corpus: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Documents of one corpus by length.

    Attributes:
        counted: Kept documents per bin of `LENGTH_EDGES`.
        drawn: Drawn ones per bin.
        num_not_counted: Kept documents that have too few bytes to be long enough; not in a bin.
    """

    counted: NDArray[np.int64]
    drawn: NDArray[np.int64]
    num_not_counted: int


def count_rejects(files: Iterable[Path]) -> tuple[RejectRow, ...]:
    """Rejects by stage, corpus and reason, the most frequent first within a corpus's stage."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(columns=list(_REJECT_KEY), batch_size=_BATCH):
            table = pa.Table.from_batches([batch]).group_by(list(_REJECT_KEY)).aggregate([([], "count_all")])
            for row in table.to_pylist():
                counts[row["stage"], row["source"], row["reason"]] += row["count_all"]
    order = {"ingest": 0, "clean": 1, "select": 2}
    keys = sorted(counts, key=lambda key: (order.get(key[0], 3), key[0], key[1], -counts[key], key[2]))
    return tuple(RejectRow(stage=one[0], corpus=one[1], reason=one[2], count=counts[one]) for one in keys)


def count_lengths_by_corpus(length_files: Iterable[Path], drawn_file: Path) -> dict[str, Lengths]:
    """Lengths of kept and of drawn documents by corpus, in name order. Reads no text."""
    counted, not_counted = _histograms(length_files)
    drawn, _ = _histograms([drawn_file])
    none = np.zeros(len(LENGTH_EDGES) - 1, dtype=np.int64)
    return {
        name: Lengths(
            counted=counted.get(name, none), drawn=drawn.get(name, none), num_not_counted=not_counted.get(name, 0)
        )
        for name in sorted({*counted, *not_counted})
    }


def funnels(
    ingested: Mapping[str, int], rejects: Iterable[RejectRow], eligible: Mapping[str, int], drawn: Mapping[str, int]
) -> tuple[Funnel, ...]:
    """The way of every corpus.

    Args:
        ingested: Corpus -> documents that reading gave, in the order to keep.
        rejects: Of all stages. Files left out of a repository that was read are no records of their own.
        eligible: Corpus -> documents that could have been drawn.
        drawn: Corpus -> documents that were.
    """
    left: Counter[tuple[str, str]] = Counter()
    for row in rejects:
        if not row.reason.startswith("files left out"):  # parts of documents that were read
            left[row.stage, row.corpus] += row.count
    return tuple(
        Funnel(
            corpus=name,
            read=number + left["ingest", name],
            ingested=number,
            kept=number - left["clean", name],
            eligible=eligible.get(name, 0),
            drawn=drawn.get(name, 0),
        )
        for name, number in ingested.items()
    )


def _histograms(files: Iterable[Path]) -> tuple[dict[str, NDArray[np.int64]], Counter[str]]:
    """Corpus -> documents per bin, and documents without a length."""
    counts: dict[str, NDArray[np.int64]] = {}
    without: Counter[str] = Counter()
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(columns=["source", "num_tokens"], batch_size=_BATCH):
            sources = batch["source"].to_numpy(zero_copy_only=False)
            tokens = batch["num_tokens"].fill_null(-1).to_numpy()
            for name in np.unique(sources):
                own = tokens[sources == name]
                without[name] += int((own < 0).sum())
                # What lies beyond the outermost bins is shown in them.
                clipped = np.clip(own[own >= 0], LENGTH_EDGES[0], LENGTH_EDGES[-1])
                counts[name] = counts.get(name, 0) + np.histogram(clipped, LENGTH_EDGES)[0].astype(np.int64)
    return counts, without
