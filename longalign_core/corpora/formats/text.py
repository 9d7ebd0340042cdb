"""Folders of books and other plain texts: one document a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from longalign_core.config.corpus_formats import TextCorpus
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, decode_text, reject
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.records import Reject

SUFFIXES = (".txt", ".md", ".rst")
_GUTENBERG_START = re.compile(r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[^\n]*?\*\*\*", re.M | re.I)
_GUTENBERG_END = re.compile(r"^\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK", re.M | re.I)
_GUTENBERG_TITLE = re.compile(r"^Title:[ \t]*(\S[^\r\n]*)", re.M)


def read(unit: Unit, config: TextCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read a `.txt`, `.md` or `.rst` file as one document; see `reading.Reader`.

    The header and the licence that Project Gutenberg puts around a book are taken off.
    """
    (file,) = unit.files
    path = file.relative_path
    if PurePosixPath(path).suffix.lower() not in SUFFIXES:
        yield reject(config, path, "other file type", f"expected {', '.join(SUFFIXES)}")
        return
    if file.size > MAX_TEXT_BYTES:
        yield reject(config, path, "too large", f"{file.size} bytes, more than {MAX_TEXT_BYTES}")
        return
    with file.open() as stream:
        text = decode_text(stream.read(MAX_TEXT_BYTES), config.language)
    if text is None:
        yield reject(config, path, "binary file", "it is not text in UTF-8, UTF-16 or Latin-1")
        return
    title, text = split_gutenberg(text)
    yield RawDocument(path, text, origin=path, title=title)


def split_gutenberg(text: str) -> tuple[str | None, str]:
    """Title and body of a Project Gutenberg file; None and the text itself of any other."""
    start = _GUTENBERG_START.search(text)
    if start is None:
        return None, text
    end = _GUTENBERG_END.search(text, start.end())
    title = _GUTENBERG_TITLE.search(text, 0, start.start())
    return title and title.group(1).strip(), text[start.end() : end.start() if end else len(text)]
