"""Per-document cleaning, and the one way in which documents are made."""

from __future__ import annotations

import re
import unicodedata

from longalign_core.config.corpus_formats import CorpusConfig
from longalign_core.corpora.reading import RawDocument
from longalign_core.records import Document, Reject, text_sha256
from longalign_core.source_files import printable

MAX_TEXT_BYTES = 8 << 20
"""Largest text of one document, in bytes. About two million tokens: far beyond any length that can
be drawn, and what one document may cost in memory."""

_LINE_ENDS = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_BLANK_RUNS = re.compile(r"\n{4,}")
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def clean_text(text: str) -> str:
    """Bring a text into one form: NFC, newlines as line ends, no control characters but tab and newline.

    White space at line ends goes, at most two blank lines stand in a row, none at the start or the
    end. Lone surrogates, which no file can hold, become U+FFFD. Cleaning twice changes nothing more.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))
    text = unicodedata.normalize("NFC", text)
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return _BLANK_RUNS.sub("\n\n\n", text).strip("\n")


def decode_text(data: bytes) -> str | None:
    """Text of a file: by its byte order mark, else UTF-8, else Latin-1; None when it is binary.

    Latin-1 is read as Windows-1252, its superset, as browsers do, so that typographic quotes survive.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    num_controls = sum(data.count(byte) for byte in range(32) if byte not in b"\t\n\v\f\r")
    if num_controls > len(data) // 100:
        return None
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def finish_document(config: CorpusConfig, raw: RawDocument) -> Document | Reject:
    """Clean a raw document and make its record, or say why not."""
    text = clean_text(raw.text)
    if len(text) < config.min_characters:
        return reject(
            config, raw.name, "too short", f"{len(text)} characters, fewer than min_characters {config.min_characters}"
        )
    return Document(
        id=document_id(config, raw.name),
        text=text,
        source=config.name,
        language=config.language,
        origin=raw.origin,
        sha256=text_sha256(text),
        url=raw.url,
        title=raw.title,
        licence=raw.licence or config.licence,
        created=raw.created,
    )


def reject(config: CorpusConfig, name: str, reason: str, detail: str = "") -> Reject:
    """A record of the corpus that is left out while reading."""
    return Reject(id=document_id(config, name), source=config.name, stage="ingest", reason=reason, detail=detail)


def document_id(config: CorpusConfig, name: str) -> str:
    """`{corpus}:{name}`, in NFC, so that file systems that spell accents apart agree."""
    return f"{config.name}:{unicodedata.normalize('NFC', printable(name))}"
