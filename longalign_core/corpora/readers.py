"""The table of readers: a format is one module with a `read` function, named here; and how a unit is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from longalign_core.config.corpus_formats import CorpusConfig
from longalign_core.corpora.cleaning import reject
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
from longalign_core.corpora.reading import Cursor, RawDocument, Reader, Unit
from longalign_core.records import Reject

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


def read_unit(unit: Unit, config: CorpusConfig, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read a unit by its format, so that every unit gives a record; see `reading.Reader`.

    A file without a byte, whatever its format, and one in which the reader finds nothing to tell of,
    such as an array of no objects, are counted rejects.
    """
    if _is_empty_file(unit):
        yield reject(config, unit.name, "empty file", f"{unit.name} has no bytes")
        return
    is_silent = cursor.position == 0
    for record in READERS[config.format].read(unit, config, cursor):
        is_silent = False
        yield record
    if is_silent:
        yield reject(config, unit.name, "no records", f"{unit.name} can be read, but holds nothing to read")


def _is_empty_file(unit: Unit) -> bool:
    """Whether it is one file without a byte. A place that does not tell sizes says 0 of every file."""
    if len(unit.files) != 1 or unit.files[0].relative_path != unit.name or unit.files[0].size:
        return False
    with unit.files[0].open() as stream:
        return not stream.read(1)
