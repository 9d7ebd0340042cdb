"""Stage `select`: the documents that become instruction data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from longalign_core.config.runtime import Runtime
from longalign_core.config.selection import SelectionConfig
from longalign_core.errors import DataError
from longalign_core.progress import track
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Document
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.documents import KeptDocuments, chosen_documents, num_documents, part_files, watched
from longalign_core.stages.licences import carry_licences, read_licences
from longalign_core.stages.model_folders import tokenizer_path
from longalign_core.stages.outcomes import LONG_BATCH, REJECTS, SHORT_BATCH, write_rejects

if TYPE_CHECKING:
    from longalign_core.corpora.selecting.selection import Selection

log = logging.getLogger(__name__)

SELECTED, SELECTION, PAGE = "documents.parquet", "selection.json", "report.html"


@stage("select", version=2)
def select(config: SelectionConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Draw documents by length and corpus: `documents.parquet`, `rejects.parquet`, and what is told of them.

    `selection.json` and `report.html` tell of the draw, `licences.json` of the drawn documents.
    """
    from longalign_core.corpora.selecting.lengths import DocumentLength
    from longalign_core.corpora.selecting.selection import draw, rejects_of

    (clean_folder,) = inputs["kept"]
    folders = inputs["documents"]
    lengths_files = _count_lengths(config, folders, clean_folder, out_dir, runtime)

    def lengths() -> Iterator[DocumentLength]:
        return (one for file in lengths_files for one in read_records(file, DocumentLength, batch=SHORT_BATCH))

    selection = draw(lengths(), config)
    if not selection.num_tokens:
        of_corpora = "" if config.corpus_shares is None else " and belongs to a corpus of selection.corpus_shares"
        raise DataError(
            f"no document has between {config.min_tokens} and {config.max_tokens} tokens{of_corpora}; "
            "widen selection.min_tokens and max_tokens, or add corpora with texts of that length"
        )
    drawn = (
        replace(document, num_tokens=selection.num_tokens[document.id])
        for document in chosen_documents(folders, selection.num_tokens.keys())
    )
    write_records(out_dir / SELECTED, drawn, Document, batch=LONG_BATCH)
    reject_counts = write_rejects(out_dir, rejects_of(lengths(), selection, config))
    marked = carry_licences(folders, out_dir / SELECTED, out_dir)
    _report(selection, config, inputs, lengths_files, out_dir)
    if selection.num_missing:
        log.warning(
            "select: %d documents were wanted and %d drawn, as no more are of that length%s",
            selection.num_wanted,
            len(selection.num_tokens),
            "" if config.chinese_share is None else " and language",
        )
    shares = [one for one in selection.by_source.values() if one.wanted is not None]
    return {
        "documents": len(selection.num_tokens),
        "wanted": selection.num_wanted,
        "missing": selection.num_missing,
        "eligible": selection.num_eligible,
        "tokens": sum(selection.num_tokens.values()),
        "cells short": sum(cell.drawn < cell.wanted for cell in selection.cells),
        **({"corpora short": sum(one.drawn < (one.wanted or 0) for one in shares)} if shares else {}),
        **reject_counts,
        **marked,
    }


def _count_lengths(
    config: SelectionConfig, folders: tuple[Path, ...], clean_folder: Path, out_dir: Path, runtime: Runtime
) -> list[Path]:
    """Files of `DocumentLength`, one for each part of each corpus; those that an earlier start finished are used."""
    from longalign_core.corpora.selecting.lengths import Countable, DocumentLength, count_lengths, load_counter

    parts = [(index, part) for index, folder in enumerate(folders) for part in part_files(folder)]
    files = [out_dir / ".lengths" / f"{index:03d}-{part.name}" for index, part in parts]
    if all(file.exists() for file in files):
        return files
    counter = load_counter(tokenizer_path(config.tokenizer, runtime))
    kept = KeptDocuments(clean_folder)
    with track("select: count tokens", total=num_documents(folders), unit="documents") as step:
        for (_, part), file in zip(parts, files, strict=True):
            if not file.exists():
                documents = watched(kept.read(part, Countable), step)
                write_records(
                    file, count_lengths(documents, counter, config.min_tokens), DocumentLength, batch=SHORT_BATCH
                )
    return files


def _report(
    selection: Selection, config: SelectionConfig, inputs: Inputs, lengths_files: list[Path], out_dir: Path
) -> None:
    from longalign_core.corpora.selecting.funnel import count_lengths_by_corpus, count_rejects, funnels
    from longalign_core.corpora.selecting.report import SelectionReport

    folders = inputs["documents"]
    rejects = count_rejects([*(folder / REJECTS for folder in (*folders, *inputs["kept"])), out_dir / REJECTS])
    ingested = sorted(
        (licence.source, num_documents([folder])) for folder in folders for licence in read_licences(folder)
    )
    of_source = selection.by_source
    report = SelectionReport(
        selection=selection,
        min_tokens=config.min_tokens,
        max_tokens=config.max_tokens,
        funnels=funnels(
            dict(ingested),
            rejects,
            {name: one.eligible for name, one in of_source.items()},
            {name: one.drawn for name, one in of_source.items()},
        ),
        rejects=rejects,
        lengths=count_lengths_by_corpus(lengths_files, out_dir / SELECTED),
        licences=tuple(read_licences(out_dir)),
    )
    told = orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    (out_dir / SELECTION).write_bytes(told)
    (out_dir / PAGE).write_text(report.as_html(), encoding="utf-8")
