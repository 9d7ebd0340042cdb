"""Reading the documents of `ingest` artifacts, for the stages that come after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from longalign_core.record_files import read_records
from longalign_core.records import Document
from longalign_core.stages.outcomes import LONG_BATCH

DOCUMENTS, KEPT = "documents", "kept.parquet"


def part_files(folder: Path) -> list[Path]:
    """The document files of one corpus, in reading order; none where it gave no document."""
    return sorted((folder / DOCUMENTS).glob("*.parquet"))


def all_documents(folders: Iterable[Path]) -> Iterator[Document]:
    """The documents of several corpora, corpus by corpus."""
    for folder in folders:
        for file in part_files(folder):
            yield from read_records(file, Document, batch=LONG_BATCH)


def kept_documents(folder: Path, clean_folder: Path) -> Iterator[Document]:
    """The documents of one corpus that `clean` kept."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    kept_ids = pq.read_table(clean_folder / KEPT, columns=["id"])["id"].combine_chunks()
    for file in part_files(folder):
        ids = pq.read_table(file, columns=["id"])["id"]
        is_kept = pc.is_in(ids, value_set=kept_ids).to_numpy()
        documents = read_records(file, Document, batch=LONG_BATCH)
        yield from (document for document, keep in zip(documents, is_kept, strict=True) if keep)


def num_documents(folders: Iterable[Path]) -> int:
    """How many documents the corpora have."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for folder in folders for file in part_files(folder))


def watched(documents: Iterable[Document], step: Callable[..., None]) -> Iterator[Document]:
    """The same documents, each told to `step`."""
    for document in documents:
        yield document
        step(1)
