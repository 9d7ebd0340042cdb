"""JSON lines with C4's fields, plain or compressed: one document a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from longalign_core.config.corpus_formats import JsonLinesCorpus
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.unpacking import DAMAGE, open_unpacked, raise_unless_damaged, without_compression
from longalign_core.records import Reject

SUFFIXES = (".json", ".jsonl", ".ndjson")
MAX_LINE_BYTES = 2 * MAX_TEXT_BYTES
"""Longest line that is looked at: a text and what escapes make of it."""


def read(unit: Unit, config: JsonLinesCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read every line as one document; see `reading.Reader`. The position is the number of lines read.

    A broken line is a reject that names file and line; of a file that breaks off, what came before
    is kept.
    """
    (file,) = unit.files
    path = file.relative_path
    if not without_compression(path.lower()).endswith(SUFFIXES):
        yield reject(config, path, "other file type", f"expected {', '.join(SUFFIXES)}, plain or compressed")
        return
    line_number = 0
    try:
        with open_unpacked(file) as stream:
            for line_number, line in enumerate(_lines(stream), start=1):
                if line_number <= cursor.position:
                    continue
                cursor.position = line_number
                if line_number == 1 and line is not None and line.lstrip().startswith(b"["):
                    yield reject(config, path, "not JSON lines", "the file is one JSON array; use format json_array")
                    break
                if line is None or not line.isspace():
                    yield _read_line(line, f"{path}#{line_number}", config)
    except DAMAGE as error:
        raise_unless_damaged(error)
        yield reject(config, path, "truncated file", f"the file breaks off after line {line_number}")


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines with their ends; None for one longer than is looked at."""
    while line := stream.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES)
        yield None


def _read_line(line: bytes | None, name: str, config: JsonLinesCorpus) -> RawDocument | Reject:
    if line is None:
        return reject(config, name, "too large", f"the line has more than {MAX_LINE_BYTES} bytes")
    try:
        row: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return reject(config, name, "broken line", f"not JSON: {error.msg} at character {error.pos}")
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        return reject(config, name, "no text", "expected an object with a string `text`")
    if len(row["text"]) > MAX_TEXT_BYTES:
        return reject(config, name, "too large", f"{len(row['text'])} characters, more than {MAX_TEXT_BYTES}")
    return RawDocument(
        name,
        row["text"],
        origin=name,
        url=_words(row, "url"),
        title=_words(row, "title"),
        created=_words(row, "timestamp"),
    )


def _words(row: dict[str, Any], field: str) -> str | None:
    value = row.get(field)
    return value if isinstance(value, str) and value else None
