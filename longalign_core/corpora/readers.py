"""The table of readers: a format is one module with a `read` function, named here."""

from __future__ import annotations

from collections.abc import Mapping

from longalign_core.corpora import arxiv, books, json_lines, mediawiki, repository, text
from longalign_core.corpora.reading import Reader

READERS: Mapping[str, Reader] = {
    "arxiv": Reader(arxiv.read),
    "books": Reader(books.read),
from longalign_core.corpora import json_array, json_lines, mediawiki, parquet, repository, text
from longalign_core.corpora.reading import Reader

READERS: Mapping[str, Reader] = {
    "json_array": Reader(json_array.read),
from longalign_core.corpora import clue, json_lines, mediawiki, repository, stackexchange, text
from longalign_core.corpora.reading import Reader

READERS: Mapping[str, Reader] = {
    "clue": Reader(clue.read),
    "json_lines": Reader(json_lines.read),
    "mediawiki": Reader(mediawiki.read),
    "parquet": Reader(parquet.read),
    "repository": Reader(repository.read, repository.units),
    "stackexchange": Reader(stackexchange.read, stackexchange.units),
    "text": Reader(text.read),
}
"""Reader of each format a recipe can name."""
