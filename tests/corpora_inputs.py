"""Small corpora for tests: files in memory, archives, and the readers over them."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import TypeAdapter

from longalign_core.config.corpora import Corpus
from longalign_core.config.corpus_formats import CorpusConfig
from longalign_core.corpora.cleaning import finish_document
from longalign_core.corpora.readers import READERS, read_unit
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.records import Document, Reject
from longalign_core.source_files import SourceFile


def corpus(format: str, **fields) -> CorpusConfig:
    values = {"name": "sample", "format": format, "location": "anywhere", "min_characters": 1, **fields}
    return TypeAdapter(Corpus).validate_python(values)


def in_memory(path: str, data: bytes | str) -> SourceFile:
    data = data.encode() if isinstance(data, str) else data
    return SourceFile(path, len(data), lambda: io.BytesIO(data))


def read_raw(
    files: Iterable[SourceFile], config: CorpusConfig, *, position: int = 0
) -> Iterator[tuple[RawDocument | Reject, int]]:
    """What a reader gives of files, each record with the position behind it."""
    reader = READERS[config.format]
    with tempfile.TemporaryDirectory() as scratch:
        for unit in reader.units(sorted(files, key=lambda file: file.relative_path), config):
            if isinstance(unit, Unit):
                cursor = Cursor(Path(scratch) / unit.name.replace("/", "-"), position)
                for record in read_unit(unit, config, cursor):
                    yield record, cursor.position
            else:
                yield unit, 0


def read_all(files: Iterable[SourceFile], config: CorpusConfig) -> tuple[list[Document], list[Reject]]:
    """What `ingest` makes of files."""
    records = [
        finish_document(config, record) if isinstance(record, RawDocument) else record
        for record, _ in read_raw(files, config)
    ]
    documents = [record for record in records if isinstance(record, Document)]
    return documents, [record for record in records if isinstance(record, Reject)]


def reasons(rejects: list[Reject]) -> list[str]:
    return sorted(reject.reason for reject in rejects)


def tar_gz(members: dict[str, str | bytes], *more: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in members.items():
            data = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return stream.getvalue()
