"""Documents in part files, and what the comparison across corpora makes of them."""

from __future__ import annotations

from pathlib import Path

from longalign_core.config.cleaning import CleaningConfig
from longalign_core.corpora.comparing.comparison import compare
from longalign_core.corpora.comparing.part_sketches import SketchJob, sketch_part
from longalign_core.record_files import write_records
from longalign_core.records import Document, Reject, text_sha256


def document(document_id: str, text: str) -> Document:
    source = document_id.split(":")[0]
    return Document(id=document_id, text=text, source=source, language="en", origin="", sha256=text_sha256(text))


def compared(
    folder: Path, texts: dict[str, str], config: CleaningConfig, *, num_parts: int = 2, protected: Path | None = None
) -> list[str | Reject]:
    """Ids of the documents that are kept, and rejects, by id."""
    documents = [document(*one) for one in texts.items()]
    tables = []
    for number in range(num_parts):
        part = folder / f"documents-{number}.parquet"
        write_records(part, documents[number::num_parts], Document)
        tables.append(folder / f"sketches-{number}.parquet")
        sketch_part(SketchJob(part, tables[-1], config, protected))
    return list(compare(tables, config, folder, lambda count: None))


def rejected(outcome: list[str | Reject]) -> list[Reject]:
    return [one for one in outcome if isinstance(one, Reject)]
