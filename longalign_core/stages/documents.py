"""Reading the documents of `ingest` artifacts, for the stages that come after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from longalign_core.record_files import Record, read_records
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


class KeptDocuments:
    """The documents that `clean` kept, file by file. Holds their ids."""

    def __init__(self, clean_folder: Path) -> None:
        import pyarrow.parquet as pq

        self._ids = pq.read_table(clean_folder / KEPT, columns=["id"])["id"].combine_chunks()

    def read(self, file: Path, kind: type[Record]) -> Iterator[Record]:
        """Records of the kept documents of one part; `kind` has those fields of a Document that are needed."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        ids = pq.read_table(file, columns=["id"])["id"]
        is_kept = pc.is_in(ids, value_set=self._ids).to_numpy()
        documents = read_records(file, kind, batch=LONG_BATCH)
        yield from (document for document, keep in zip(documents, is_kept, strict=True) if keep)


def num_documents(folders: Iterable[Path]) -> int:
    """How many documents the corpora have."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for folder in folders for file in part_files(folder))


def watched(documents: Iterable[Record], step: Callable[..., None]) -> Iterator[Record]:
    """The same documents, each told to `step`."""
    for document in documents:
        yield document
        step(1)
