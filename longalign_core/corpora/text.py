"""Folders of books and other plain texts: one document a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from longalign_core.config.corpora import CorpusConfig
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, decode_text, finish_document, reject
from longalign_core.corpora.source_files import SourceFile
from longalign_core.records import Document, Reject

SUFFIXES = (".txt", ".md", ".rst")
_GUTENBERG_START = re.compile(r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[^\n]*?\*\*\*", re.M | re.I)
_GUTENBERG_END = re.compile(r"^\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK", re.M | re.I)
_GUTENBERG_TITLE = re.compile(r"^Title:[ \t]*(\S[^\r\n]*)", re.M)


def read(files: Sequence[SourceFile], config: CorpusConfig) -> Iterator[Document | Reject]:
    """Read every `.txt`, `.md` and `.rst` file as one document; see `readers.Reader`.

    The header and the licence that Project Gutenberg puts around a book are taken off.
    """
    for file in files:
        if PurePosixPath(file.relative_path).suffix.lower() not in SUFFIXES:
            yield reject(config, file.relative_path, "other file type", f"expected {', '.join(SUFFIXES)}")
        elif file.size > MAX_TEXT_BYTES:
            yield reject(config, file.relative_path, "too large", f"{file.size} bytes, more than {MAX_TEXT_BYTES}")
        else:
            yield _read_file(file, config)


def _read_file(file: SourceFile, config: CorpusConfig) -> Document | Reject:
    with file.open() as stream:
        text = decode_text(stream.read(MAX_TEXT_BYTES))
    if text is None:
        return reject(config, file.relative_path, "binary file", "it is not text in UTF-8, UTF-16 or Latin-1")
    title, text = split_gutenberg(text)
    return finish_document(config, file.relative_path, text, origin=file.relative_path, title=title)


def split_gutenberg(text: str) -> tuple[str | None, str]:
    """Title and body of a Project Gutenberg file; None and the text itself of any other."""
    start = _GUTENBERG_START.search(text)
    if start is None:
        return None, text
    end = _GUTENBERG_END.search(text, start.end())
    title = _GUTENBERG_TITLE.search(text, 0, start.start())
    return title and title.group(1).strip(), text[start.end() : end.start() if end else len(text)]
