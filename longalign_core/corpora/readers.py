"""The table of readers: a format is one module with a `read` function, named here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from longalign_core.config.corpora import CorpusConfig, CorpusFormat
from longalign_core.corpora import json_lines, mediawiki, repository, text
from longalign_core.corpora.source_files import SourceFile
from longalign_core.records import Document, Reject


class Reader(Protocol):
    """Reads one native format.

    Streams: memory holds one document, never a corpus. What cannot be used is a Reject with a
    reason, and reading goes on. Ids depend on relative paths and content alone and are unique.
    """

    def __call__(self, files: Sequence[SourceFile], config: CorpusConfig) -> Iterator[Document | Reject]:
        """Yield the corpus's documents and rejects, in the order of `files`."""


READERS: Mapping[CorpusFormat, Reader] = {
    "text": text.read,
    "json_lines": json_lines.read,
    "repository": repository.read,
    "mediawiki": mediawiki.read,
}
"""Reader of each format a recipe can name."""
