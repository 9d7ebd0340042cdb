"""Small corpora for tests: files in memory, archives, and the readers over them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

from longalign_core.config.corpora import CorpusConfig
from longalign_core.corpora.readers import READERS
from longalign_core.corpora.source_files import SourceFile
from longalign_core.records import Document, Reject


def corpus(format: str, **fields) -> CorpusConfig:
    return CorpusConfig(**{"name": "sample", "format": format, "location": "anywhere", "min_characters": 1, **fields})


def in_memory(path: str, data: bytes | str) -> SourceFile:
    data = data.encode() if isinstance(data, str) else data
    return SourceFile(path, len(data), lambda: io.BytesIO(data))


def read_all(files: Iterable[SourceFile], config: CorpusConfig) -> tuple[list[Document], list[Reject]]:
    records = list(READERS[config.format](sorted(files, key=lambda file: file.relative_path), config))
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
