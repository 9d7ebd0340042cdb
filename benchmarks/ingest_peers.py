"""Readers and token counting against the parser or tokenizer alone, on the same file and texts."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import orjson
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from benchmarks.ingest_inputs import documents, paragraphs
from benchmarks.ingest_probe import corpus, read_units
from benchmarks.measuring import Comparison, compare
from longalign_core.corpora.reading import RawDocument
from longalign_core.corpora.selecting.lengths import count_lengths, load_counter
from longalign_core.records import Document


def compare_reader(format: str, file: Path, *, turns: int) -> Comparison:
    """A reader alone against its parser yielding Python strings from the same file."""
    config = corpus(format=format, location=str(file))

    def ours() -> int:
        return sum(1 for record in read_units(config) if isinstance(record, RawDocument))

    peer = _PEERS[format]
    return compare(ours, lambda: peer(file), turns=turns)


def compare_counting(texts: Sequence[str], *, vocabulary: int, turns: int) -> Comparison:
    """`count_lengths` against one call of the tokenizer's own batch encoding, on all texts."""
    tokenizer = train_tokenizer(vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        counter = load_counter(Path(folder))
    records = [
        Document(id=str(number), text=text, source="", language="en", origin="", sha256="")
        for number, text in enumerate(texts)
    ]

    def ours() -> int:
        return sum(one.num_tokens or 0 for one in count_lengths(records, counter, min_tokens=1))

    def peer() -> int:
        return sum(len(one.ids) for one in tokenizer.encode_batch(list(texts), add_special_tokens=False))

    return compare(ours, peer, turns=turns)


def train_tokenizer(vocabulary: int) -> Tokenizer:
    """A byte-level BPE of the sample's paragraphs."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(paragraphs(), trainer)
    return tokenizer


def texts_of(num_documents: int) -> list[str]:
    """Texts to count."""
    return [row["text"] for row in islice(documents(seed=1), num_documents)]


def _parse_json_lines(file: Path) -> int:
    with gzip.open(file) as lines:
        return sum(1 for line in lines if orjson.loads(line)["text"])


def _parse_parquet(file: Path) -> int:
    batches = pq.ParquetFile(file).iter_batches(columns=["text"])
    return sum(1 for batch in batches for text in batch["text"].to_pylist() if text)


def _parse_warc(file: Path) -> int:
    """FastWARC and trafilatura with the settings of the reader: the same extraction is compared."""
    import trafilatura
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    num_texts = 0
    with file.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
            if record.http_headers.status_code != 200 or "html" not in (record.http_content_type or ""):
                continue
            found = trafilatura.extract(record.reader.read(), favor_recall=True, fast=True, include_comments=False)
            num_texts += bool(found and found.strip())
    return num_texts


_PEERS: dict[str, Callable[[Path], int]] = {
    "json_lines": _parse_json_lines,
    "parquet": _parse_parquet,
    "warc": _parse_warc,
}
