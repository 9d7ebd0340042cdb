"""Stage `select`: the documents that become instruction data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson

from longalign_core.config.runtime import Runtime
from longalign_core.config.selection import SelectionConfig
from longalign_core.errors import DataError
from longalign_core.progress import track
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Document
from longalign_core.sources import local_path
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.documents import all_documents, kept_documents, num_documents, watched
from longalign_core.stages.outcomes import LONG_BATCH, SHORT_BATCH, write_rejects

log = logging.getLogger(__name__)

SELECTED, SELECTION = "documents.parquet", "selection.json"


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
        for document in all_documents(folders)
        if document.id in selection.num_tokens
    )
    write_records(out_dir / SELECTED, drawn, Document, batch=LONG_BATCH)
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
    with track("select: count tokens", total=num_documents(folders), unit="documents") as step:
        for folder, file in zip(folders, files, strict=True):
            if not file.exists():
                documents = watched(kept_documents(folder, clean_folder), step)
                write_records(
                    file, count_lengths(documents, counter, config.min_tokens), DocumentLength, batch=SHORT_BATCH
                )
    return files
