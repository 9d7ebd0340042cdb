"""JSON lines (C4, The Pile), plain or compressed: one document a line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

import orjson

from longalign_core.config.corpus_formats import JsonLinesCorpus
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.record_fields import document_of_row, is_other_pile_set, pile_sets_left_out
from longalign_core.corpora.unpacking import DAMAGE, open_unpacked, raise_unless_damaged, without_compression
from longalign_core.records import Reject

SUFFIXES = (".json", ".jsonl", ".ndjson")
MAX_LINE_BYTES = 2 * MAX_TEXT_BYTES
"""Longest line that is looked at: a text and what escapes make of it."""


def read(unit: Unit, config: JsonLinesCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read every line as one document; see `reading.Reader`. The position is the number of lines read.

    A broken line is a reject that names file and line; of a file that breaks off, what came before
    is kept. With `pile_set`, lines before the position are parsed again to count those left out.
    """
    (file,) = unit.files
    path = file.relative_path
    if not without_compression(path.lower()).endswith(SUFFIXES):
        yield reject(config, path, "other file type", f"expected {', '.join(SUFFIXES)}, plain or compressed")
        return
    line_number = num_left_out = 0
    damage = None
    try:
        with open_unpacked(file) as stream:
            for line_number, line in enumerate(_lines(stream), start=1):
                if line_number == 1 and line is not None and (why := _why_refused(line)):
                    yield reject(config, path, "not JSON lines", why)
                    return
                if line_number <= cursor.position and config.pile_set is None:
                    continue
                name = f"{path}#{line_number}"
                record = _read_line(line, name, config)
                if record is None:
                    num_left_out += not (line is None or line.isspace())
                elif line_number > cursor.position:
                    cursor.position = line_number
                    yield record
    except DAMAGE as error:
        raise_unless_damaged(error)
        damage = reject(config, path, "truncated file", f"the file breaks off after line {line_number}")
    if num_left_out:
        yield pile_sets_left_out(num_left_out, path, config)
    if damage is not None:
        yield damage


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines with their ends; None for one longer than is looked at."""
    while line := stream.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES)
        yield None


def _why_refused(first_line: bytes) -> str | None:
    if first_line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the file is UTF-16; JSON lines are UTF-8"
    if first_line.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return "the file is one JSON array; use format json_array"
    return None


def _read_line(line: bytes | None, name: str, config: JsonLinesCorpus) -> RawDocument | Reject | None:
    """What a line holds; None for a blank one and for one of another Pile set."""
    if line is None:
        return reject(config, name, "too large", f"the line has more than {MAX_LINE_BYTES} bytes")
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if line.startswith(codecs.BOM_UTF8):
            return _read_line(line.removeprefix(codecs.BOM_UTF8), name, config)
        if not line.strip():
            return None
        return reject(config, name, "broken line", f"not JSON: {error.msg} at character {error.pos}")
    if not isinstance(row, dict):
        row = {}
    elif is_other_pile_set(row, config):
        return None
    return document_of_row(row, name, name, config)
