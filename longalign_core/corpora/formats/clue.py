"""CLUECorpus text files: a sentence a line, a blank line between documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from longalign_core.config.corpus_formats import ClueCorpus
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.unpacking import (
    COMPRESSIONS,
    DAMAGE,
    open_unpacked,
    raise_unless_damaged,
    without_compression,
)
from longalign_core.records import Reject

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE_BYTES = 1 << 20


def read(unit: Unit, config: ClueCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read every run of lines as one document, its lines kept; see `reading.Reader`.

    The position is the number of documents read. Each is UTF-8, or GB 18030 as a whole. Of a file
    that breaks off, the documents that ended before are kept.
    """
    (file,) = unit.files
    path = file.relative_path
    if not without_compression(path.lower()).endswith(".txt"):
        yield reject(config, path, "other file type", f"expected .txt, plain or {', '.join(COMPRESSIONS)}")
        return
    number = 0
    try:
        with open_unpacked(file) as stream:
            for number, (line_number, data) in enumerate(_documents(stream), start=1):
                if number > cursor.position:
                    cursor.position = number
                    yield _read_document(data, f"{path}#{number}", line_number, config)
    except DAMAGE as error:
        raise_unless_damaged(error)
        yield reject(config, path, "truncated file", f"the file breaks off after document {number}")


def _documents(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """First line and bytes of each document; None for one of more bytes than are kept."""
    pieces: list[bytes] = []
    size = first_line = 0
    line_number, at_line_start = 0, True
    while piece := stream.readline(_PIECE_BYTES):
        if at_line_start:
            line_number += 1
            if line_number == 1:
                piece = piece.removeprefix(_BYTE_ORDER_MARK)
        ends = piece.endswith(b"\n")
        if at_line_start and ends and not piece.strip():
            if size:
                yield first_line, b"".join(pieces) if size <= MAX_TEXT_BYTES else None
                pieces, size = [], 0
            continue
        at_line_start = ends
        first_line = first_line if size else line_number
        size += len(piece)
        if size <= MAX_TEXT_BYTES:
            pieces.append(piece)
        else:
            pieces = []
    if size:
        yield first_line, b"".join(pieces) if size <= MAX_TEXT_BYTES else None


def _read_document(data: bytes | None, name: str, line_number: int, config: ClueCorpus) -> RawDocument | Reject:
    where = f"from line {line_number}"
    if data is None:
        return reject(config, name, "too large", f"more than {MAX_TEXT_BYTES} bytes, {where}")
    if b"\0" in data:
        return reject(config, name, "wrong encoding", f"null bytes, {where}: it is UTF-16 or no text")
    text = _decoded(data)
    if text is None:
        return reject(config, name, "wrong encoding", f"neither UTF-8 nor GB 18030, {where}")
    return RawDocument(name, text, origin=f"{name}, {where}")


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    # Damaged UTF-8 may be valid GB 18030, of other characters: most of what is not ASCII must be wrong.
    as_utf8 = data.decode("utf-8", "replace")
    if 2 * as_utf8.count("\ufffd") < sum(not character.isascii() for character in as_utf8):
        return None
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError:
        return None
