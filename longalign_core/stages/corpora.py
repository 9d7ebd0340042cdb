"""Stages of the corpora: `ingest` reads one, `clean` compares all, `select` draws."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import orjson

from longalign_core.config.corpora import CleaningConfig, CorpusConfig, SelectionConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError
from longalign_core.progress import track
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Document, Reject
from longalign_core.sources import local_path
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.outcomes import LONG_BATCH, SHORT_BATCH, write_outcomes, write_rejects

log = logging.getLogger(__name__)

DOCUMENTS, KEPT, SELECTION = "documents.parquet", "kept.parquet", "selection.json"


@dataclass(frozen=True, slots=True)
class KeptId:
    """Id of a document that `clean` keeps."""

    id: str


@stage("ingest", version=1, parallel=True)
def ingest(config: CorpusConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Read one corpus: `documents.parquet` and `rejects.parquet`."""
    from longalign_core.corpora.cleaning import reject
    from longalign_core.corpora.readers import READERS
    from longalign_core.corpora.source_files import SourceFile, list_files

    listing = list_files(local_path(config.location, runtime))
    if not listing.files:
        raise DataError(f"the location of corpus {config.name!r} holds no file; name one that does, or drop the corpus")
    num_bytes = sum(file.size for file in listing.files)
    with track(f"ingest {config.name}", total=num_bytes, unit="bytes") as step:

        def shown(file: SourceFile) -> SourceFile:
            def opened() -> BinaryIO:
                step(file.size, file.relative_path)
                return file.open()

            return replace(file, open=opened)

        links = (reject(config, link, "link", "links and special files are not followed") for link in listing.links)
        records = READERS[config.format]([shown(file) for file in listing.files], config)
        counts = write_outcomes(
            chain(_limited(records, config.max_documents), links), out_dir, DOCUMENTS, Document, batch=LONG_BATCH
        )
    if not counts["documents"]:
        reasons = [key.removeprefix("rejects: ") for key in counts if key.startswith("rejects: ")]
        log.warning("ingest: corpus %s gave no document; its records were rejected as: %s", config.name, reasons)
    return {**counts, "files": len(listing.files), "bytes": num_bytes, "hidden files": listing.num_hidden}


@stage("clean", version=1)
def clean(config: CleaningConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Compare the documents of all corpora: `kept.parquet` (ids) and `rejects.parquet`."""
    from longalign_core.corpora.duplicates import find_duplicates

    with track("clean", total=_num_documents(inputs["documents"]), unit="documents") as step:
        documents = _watched(_all_documents(inputs["documents"]), step)
        kept = find_duplicates(documents) if config.exact_duplicates else (document.id for document in documents)
        records = (KeptId(one) if isinstance(one, str) else one for one in kept)
        return write_outcomes(records, out_dir, KEPT, KeptId, batch=SHORT_BATCH)


@stage("select", version=1)
def select(config: SelectionConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Draw documents by length: `documents.parquet`, `rejects.parquet` and `selection.json`."""
    from longalign_core.corpora.lengths import DocumentLength
    from longalign_core.corpora.selection import draw, rejects_of

    (clean_folder,) = inputs["kept"]
    folders = inputs["documents"]
    lengths_files = _count_lengths(config, folders, clean_folder, out_dir, runtime)

    def lengths() -> Iterator[DocumentLength]:
        return (one for file in lengths_files for one in read_records(file, DocumentLength, batch=SHORT_BATCH))

    selection = draw(lengths(), config)
    if not selection.num_tokens:
        raise DataError(
            f"no document has between {config.min_tokens} and {config.max_tokens} tokens; "
            "widen selection.min_tokens and max_tokens, or add corpora with texts of that length"
        )
    drawn = (
        replace(document, num_tokens=selection.num_tokens[document.id])
        for document in _all_documents(folders)
        if document.id in selection.num_tokens
    )
    write_records(out_dir / DOCUMENTS, drawn, Document, batch=LONG_BATCH)
    reject_counts = write_rejects(out_dir, rejects_of(lengths(), selection, config))
    summary = {
        "cells": selection.table(),
        "drawn": len(selection.num_tokens),
        "eligible": sum(selection.eligible_by_source.values()),
        "eligible_by_source": dict(selection.eligible_by_source),
        "missing": selection.num_missing,
        "wanted": selection.num_wanted,
    }
    (out_dir / SELECTION).write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    if selection.num_missing:
        log.warning(
            "select: %d documents were wanted and %d drawn, as no more are of that length%s",
            selection.num_wanted,
            len(selection.num_tokens),
            "" if config.chinese_share is None else " and language",
        )
    return {
        "documents": len(selection.num_tokens),
        "wanted": selection.num_wanted,
        "missing": selection.num_missing,
        "eligible": sum(selection.eligible_by_source.values()),
        "tokens": sum(selection.num_tokens.values()),
        "cells short": sum(cell.drawn < cell.wanted for cell in selection.cells),
        **reject_counts,
    }


def _count_lengths(
    config: SelectionConfig, folders: tuple[Path, ...], clean_folder: Path, out_dir: Path, runtime: Runtime
) -> list[Path]:
    """Files of `DocumentLength`, one for each corpus; those that an earlier start finished are used as they are."""
    from longalign_core.corpora.lengths import DocumentLength, count_lengths, load_counter

    files = [out_dir / f".lengths-{index}.parquet" for index in range(len(folders))]
    counter = load_counter(local_path(config.tokenizer, runtime))
    with track("select: count tokens", total=_num_documents(folders), unit="documents") as step:
        for folder, file in zip(folders, files, strict=True):
            if not file.exists():
                documents = _watched(_kept_documents(folder, clean_folder), step)
                write_records(
                    file, count_lengths(documents, counter, config.min_tokens), DocumentLength, batch=SHORT_BATCH
                )
    return files


def _kept_documents(folder: Path, clean_folder: Path) -> Iterator[Document]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    kept_ids = pq.read_table(clean_folder / KEPT, columns=["id"])["id"].combine_chunks()
    ids = pq.read_table(folder / DOCUMENTS, columns=["id"])["id"]
    is_kept = pc.is_in(ids, value_set=kept_ids).to_numpy()
    documents = read_records(folder / DOCUMENTS, Document, batch=LONG_BATCH)
    return (document for document, keep in zip(documents, is_kept, strict=True) if keep)


def _all_documents(folders: tuple[Path, ...]) -> Iterator[Document]:
    return (document for folder in folders for document in read_records(folder / DOCUMENTS, Document, batch=LONG_BATCH))


def _num_documents(folders: tuple[Path, ...]) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(folder / DOCUMENTS).num_rows for folder in folders)


def _limited(records: Iterable[Document | Reject], max_documents: int | None) -> Iterator[Document | Reject]:
    num_documents = 0
    for record in records:
        yield record
        num_documents += isinstance(record, Document)
        if num_documents == max_documents:
            return


def _watched(documents: Iterable[Document], step: Callable[..., None]) -> Iterator[Document]:
    for document in documents:
        yield document
        step(1)
