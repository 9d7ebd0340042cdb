"""Texts that training data must not hold, as hashes of their runs of words, and finding them in documents.

Protected texts are benchmarks: they are kept as hashes, from which nobody can read them. Runs of 13
words are usual (Brown et al. 2020, appendix C); see `word_hashes` for what a run is in Chinese.

A *short* text, a question or a reference, is found by any of its runs: nobody writes 13 words of it by
chance. One that is shorter than a run is found as a whole, if it has eight words or more; below that it
says too little. A *long* text is a document of a benchmark. A quotation of it, or a licence that both carry,
contaminates nothing, so it is found by the share of runs in common, of the shorter text's runs:
either much of the protected text is in the document, or the document is a piece of the protected text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from longalign_core.compiled import compiled
from longalign_core.corpora.cleaning import clean_text
from longalign_core.word_hashes import Hashes, run_blocks, text_length

Kind = Literal["short", "long"]
LEAST_WORDS = 8
"""A protected text of fewer words is not searched for."""
SHORT_WORDS = 256
"""A text that its user did not call a question or a document is short up to here."""

_SCHEMA = pa.schema([("id", pa.string()), ("kind", pa.string()), ("span", pa.int64()), ("runs", pa.list_(pa.uint64()))])


@dataclass(frozen=True, slots=True)
class ProtectedText:
    """A text that no training document may hold, without the text.

    Attributes:
        id: Names it in reports.
        kind: How it is found.
        span: Length of its runs, in half-words.
        runs: Distinct hashes, rising.
    """

    id: str
    kind: Kind
    span: int
    runs: Hashes


def protect_text(name: str, text: str, words: int, kind: Kind | None = None) -> ProtectedText | None:
    """Hash a text; None when it is too short to be told from chance.

    Args:
        name: Names it in reports.
        text: The text as it was found; cleaned as documents are.
        words: Words of a run.
        kind: How it is found; None decides by its length.
    """
    text = clean_text(text)
    length = text_length(text)
    span = min(2 * words, length)
    if span < 2 * min(words, LEAST_WORDS):
        return None
    runs = np.unique(np.concatenate([runs for _, (runs,) in run_blocks(text, (span,))]))
    return ProtectedText(name, kind or ("short" if length <= 2 * SHORT_WORDS else "long"), span, runs)


def write_protected(file: Path, texts: Iterable[ProtectedText]) -> int:
    """Write protected texts, one a row; returns how many."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    count = 0
    with pq.ParquetWriter(unfinished, _SCHEMA, compression="zstd") as writer:
        for one in texts:
            columns = [[one.id], [one.kind], [one.span], [one.runs]]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
            count += 1
    unfinished.replace(file)
    return count


def read_protected(file: Path) -> list[ProtectedText]:
    """The protected texts of a file."""
    table = pq.read_table(file, schema=_SCHEMA)
    names, kinds, spans = (table[name].to_pylist() for name in ("id", "kind", "span"))
    runs = [runs.values.to_numpy() for runs in table["runs"]]
    return [ProtectedText(*one) for one in zip(names, kinds, spans, runs, strict=True)]


@dataclass(frozen=True, slots=True)
class Contamination:
    """A protected text in a document.

    Attributes:
        protected_id: The text of which most was found.
        num_runs: Its distinct runs in the document.
        num_words: Words of a run.
        share: Of the runs of the shorter of both.
    """

    protected_id: str
    num_runs: int
    num_words: float
    share: float

    @property
    def detail(self) -> str:
        """For people."""
        return (
            f"shares {self.num_runs} runs of {self.num_words:g} words with {self.protected_id}, "
            f"{self.share:.1%} of the shorter text"
        )


class Protection:
    """Finds protected texts in documents. Holds 16 bytes a run, and at least as much again to find them fast."""

    def __init__(self, texts: Iterable[ProtectedText], share: float) -> None:
        """Index the texts.

        Args:
            texts: What to find.
            share: Of the shorter text's runs that a long text and a document have in common at least.
        """
        self._texts = sorted(texts, key=lambda one: one.id)
        self._share = share
        self._indexes = [
            _index_of(span, [(place, one.runs) for place, one in enumerate(self._texts) if one.span == span])
            for span in sorted({one.span for one in self._texts})
        ]

    def find(self, text: str) -> Contamination | None:
        """The protected text of which the document holds the largest share; None when it holds none."""
        found: list[list[Hashes]] = [[] for _ in self._indexes]
        num_runs = [0] * len(self._indexes)
        for _, blocks in run_blocks(text, tuple(index.span for index in self._indexes)):
            for place, (index, runs) in enumerate(zip(self._indexes, blocks, strict=True)):
                found[place].append(_hits(runs, index.filter))
                num_runs[place] += len(runs)
        best: Contamination | None = None
        for index, hits, most in zip(self._indexes, found, num_runs, strict=True):
            for place, count in index.count(np.unique(np.concatenate([*hits, np.empty(0, np.uint64)]))):
                one = self._texts[place]
                share = count / min(len(one.runs), most)
                enough = one.kind == "short" or share >= self._share
                if enough and (best is None or share > best.share):
                    best = Contamination(one.id, count, one.span / 2, share)
        return best


@dataclass(frozen=True, slots=True)
class _Index:
    """The runs of one length: hashes, rising, with the text that has each; and bits that say where none is."""

    span: int
    hashes: Hashes
    texts: NDArray[np.int64]
    filter: Hashes

    def count(self, hits: Hashes) -> list[tuple[int, int]]:
        """Texts with how many of the distinct hits each has, by text."""
        first = np.searchsorted(self.hashes, hits, "left")
        last = np.searchsorted(self.hashes, hits, "right")
        places = [self.texts[one:end] for one, end in zip(first, last, strict=True) if end > one]
        if not places:
            return []
        texts, counts = np.unique(np.concatenate(places), return_counts=True)
        return [(int(text), int(count)) for text, count in zip(texts, counts, strict=True)]


def _index_of(span: int, texts: list[tuple[int, Hashes]]) -> _Index:
    hashes = np.concatenate([runs for _, runs in texts])
    places = np.concatenate([np.full(len(runs), place, np.int64) for place, runs in texts])
    order = np.lexsort((places, hashes))
    num_bits = 1 << max(12, (16 * len(hashes)).bit_length())
    return _Index(span, hashes[order], places[order], _filter_of(hashes, num_bits))


@compiled
def _filter_of(hashes: Hashes, num_bits: int) -> Hashes:
    bits = np.zeros(num_bits // 64, np.uint64)
    for one in hashes:
        place = one & np.uint64(num_bits - 1)
        bits[place >> np.uint64(6)] |= np.uint64(1) << (place & np.uint64(63))
    return bits


@compiled
def _hits(runs: Hashes, bits: Hashes) -> Hashes:
    """The runs that may be protected, among them about one in sixteen of the others, or fewer."""
    hits = np.empty(len(runs), np.uint64)
    count = 0
    last_bit = np.uint64(len(bits) * 64 - 1)
    for one in runs:
        place = one & last_bit
        if bits[place >> np.uint64(6)] >> (place & np.uint64(63)) & np.uint64(1):
            hits[count] = one
            count += 1
    return hits[:count].copy()
