"""Per-document cleaning, and the one way in which documents are made."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress

import numpy as np

from longalign_core.config.corpus_formats import CorpusConfig
from longalign_core.corpora.prose.personal_data import scrub_personal_data
from longalign_core.corpora.prose.quality import Failure, gopher_failure, keep_prose_lines
from longalign_core.corpora.reading import RawDocument
from longalign_core.records import Document, Reject, text_sha256
from longalign_core.source_files import printable
from longalign_core.text_language import identify_language

MAX_TEXT_BYTES = 8 << 20
"""Largest text of one document, in bytes. About two million tokens: far beyond any length that can
be drawn, and what one document may cost in memory."""

_LINE_ENDS = re.compile("[\r\v\f\x85\u2028\u2029]")
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f]")
# Besides control characters: what is not seen (soft hyphen, zero-width space, word joiner, byte order
# mark) and marks of direction, which only a display needs. The joiners U+200C and U+200D stay: scripts
# of Asia and emoji are spelt with them.
_REMOVED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_RARE_ASCII = bytes(byte for byte in (*range(32), 127) if byte not in b"\t\n")
_RARE_BEYOND = tuple(
    re.compile(expression)
    for expression in (
        rb"\xc2[\x80-\xa0\xad]",
        rb"\xd8\x9c",
        rb"\xe1\x9a\x80",
        rb"\xe2\x80[\x80-\x8b\x8e\x8f\xa8-\xaf]",
        rb"\xe2\x81[\x9f-\xaf]",
        rb"\xed[\xa0-\xbf]",
        rb"\xef\xbb\xbf",
    )
)
"""UTF-8 of all that is replaced. Each begins with bytes that can be searched for fast."""

_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def clean_text(text: str) -> str:
    """Bring a text into one form: NFC, newlines as line ends, no control characters but tab and newline.

    Characters that are not seen and marks of direction go; spaces of odd widths and those that do not
    break become plain ones, but for the ideographic space, which is part of how Chinese is set. White
    space at line ends goes, at most two blank lines stand in a row, none at the start or the end.
    Lone surrogates, which no file can hold, become U+FFFD. Cleaning twice changes nothing more.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    data = text.encode("utf-8", "surrogatepass")
    if _has_rare_characters(data):
        text = _SPACES.sub(" ", _LINE_ENDS.sub("\n", text))
        text = _SURROGATES.sub("\ufffd", _REMOVED.sub("", text))
        data = text.encode()
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if _has_space_at_line_ends(data):
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    while "\n\n\n\n" in text:  # a run shrinks by a quarter each time: few rounds, each faster than an expression
        text = text.replace("\n\n\n\n", "\n\n\n")
    return text.strip("\n")


def _has_rare_characters(data: bytes) -> bool:
    """Whether UTF-8 holds anything to be replaced. Nearly no text does, and replacing is slow."""
    if len(data.translate(None, _RARE_ASCII)) != len(data):
        return True
    return not data.isascii() and any(expression.search(data) for expression in _RARE_BEYOND)


def _has_space_at_line_ends(data: bytes) -> bool:
    """Whether a line of UTF-8 ends in a space or a tab. Splitting into lines to see takes ten times as long."""
    if data.endswith((b" ", b"\t")):
        return True
    characters = np.frombuffer(data, np.uint8)
    before = characters[:-1][characters[1:] == ord("\n")]
    return bool(np.any((before == ord(" ")) | (before == ord("\t"))))


def decode_text(data: bytes, language: str = "") -> str | None:
    """Text of a file: by its byte order mark, else UTF-8, else Latin-1; None when it is binary.

    Chinese text that is not UTF-8 is read as GB 18030 where it can be.

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
    if language == "zh":
        with suppress(UnicodeDecodeError):
            return data.decode("gb18030")
    num_controls = sum(data.count(byte) for byte in range(32) if byte not in b"\t\n\v\f\r")
    if num_controls > len(data) // 100:
        return None
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def finish_document(config: CorpusConfig, raw: RawDocument) -> Document | Reject:
    """Clean a raw document and make its record, or say why not.

    Lines are dropped and personal data replaced before the length is looked at, and languages are told
    before the rules that depend on them. How often personal data was replaced is not counted: the
    placeholders stand in the text.
    """
    text = clean_text(raw.text)
    if "c4" in config.quality and not raw.is_code:
        prose = keep_prose_lines(text)
        if isinstance(prose, Failure):
            return reject(config, raw.name, prose.reason, prose.detail)
        text = prose
    text = scrub_personal_data(text, config.scrub)
    if len(text) < config.min_characters:
        return reject(
            config, raw.name, "too short", f"{len(text)} characters, fewer than min_characters {config.min_characters}"
        )
    language = config.language
    if config.languages and not raw.is_code:
        identified = identify_language(text)
        language = identified.code if identified else config.language
        if language not in config.languages:
            found = f"{language} (score {identified.score:.2f})" if identified else f"undecided, taken for {language}"
            return reject(config, raw.name, "other language", f"{found}, not one of {', '.join(config.languages)}")
    if "gopher" in config.quality and not raw.is_code:
        failure = gopher_failure(text, language)
        if failure is not None:
            return reject(config, raw.name, failure.reason, failure.detail)
    return Document(
        id=document_id(config, raw.name),
        text=text,
        source=config.name,
        language=language,
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
