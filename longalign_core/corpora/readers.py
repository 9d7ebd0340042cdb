"""The table of readers: a format is one module with a `read` function, named here."""

from __future__ import annotations

from collections.abc import Mapping

from longalign_core.corpora.formats import (
    arxiv,
    books,
    clue,
    hub,
    json_array,
    json_lines,
    mediawiki,
    parquet,
    repository,
    stackexchange,
    text,
    warc,
)
from longalign_core.corpora.reading import Reader

READERS: Mapping[str, Reader] = {
    "arxiv": Reader(arxiv.read),
    "books": Reader(books.read),
    "clue": Reader(clue.read),
    "hub": Reader(hub.read, hub.units),
    "json_array": Reader(json_array.read),
    "json_lines": Reader(json_lines.read),
    "mediawiki": Reader(mediawiki.read),
    "parquet": Reader(parquet.read),
    "repository": Reader(repository.read, repository.units),
    "stackexchange": Reader(stackexchange.read, stackexchange.units),
    "text": Reader(text.read),
    "warc": Reader(warc.read),
}
"""Reader of each format a recipe can name."""
