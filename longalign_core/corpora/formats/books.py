"""Books as `.txt` and `.epub`: one document a book, or several of whole chapters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from longalign_core.config.corpus_formats import BooksCorpus
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, decode_text, reject
from longalign_core.corpora.formats.text import split_gutenberg
from longalign_core.corpora.markup.chapters import Chapter, Window, cut_windows, find_chapters
from longalign_core.corpora.markup.epub import NotAnEpubError, read_epub
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.errors import DataError
from longalign_core.records import Reject
from longalign_core.source_files import SourceFile

SUFFIXES = (".txt", ".epub")
MAX_FILE_BYTES = 4 * MAX_TEXT_BYTES
MAX_EPUB_BYTES = 512 << 20
"""Pictures are most of a large one, and are not read."""
_FIELD = re.compile(r"^(Title|Author):[ \t]*(\S[^\n]*)", re.M)
_NUMBER = re.compile(r"\[E-?(?:Book|text) #(\d+)\]", re.I)
_BYLINE = re.compile(r"\s*(\S[^\n]{0,120})\n(?:[^\n]{0,60}\n){0,6}?\s*by\s+(\S[^\n]{0,80})\n", re.I)
_HEAD_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Book:
    """A book as it was found; what it does not say is None."""

    text: str
    chapters: tuple[Chapter, ...]
    title: str | None = None
    author: str | None = None
    url: str | None = None
    licence: str | None = None
    created: str | None = None


def read(unit: Unit, config: BooksCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read a book; see `reading.Reader`. The position is the number of records given.

    What Project Gutenberg puts around a book is taken off. A book longer than `max_window_characters`
    is cut as `chapters.cut_windows` says.
    """
    (file,) = unit.files
    for number, record in enumerate(_records(file, config), start=1):
        if number > cursor.position:
            cursor.position = number
            yield record


def _records(file: SourceFile, config: BooksCorpus) -> Iterator[RawDocument | Reject]:
    path = file.relative_path
    suffix = PurePosixPath(path).suffix.lower()
    limit = MAX_EPUB_BYTES if suffix == ".epub" else MAX_FILE_BYTES
    if suffix not in SUFFIXES:
        yield reject(config, path, "other file type", f"expected {', '.join(SUFFIXES)}")
    elif file.size > limit:
        yield reject(config, path, "too large", f"{file.size} bytes, more than {limit}")
    elif suffix == ".epub":
        yield from _read_epub(file, config)
    else:
        yield from _read_text(file, config)


def _read_text(file: SourceFile, config: BooksCorpus) -> Iterator[RawDocument | Reject]:
    path = file.relative_path
    with file.open() as stream:
        text = decode_text(stream.read(MAX_FILE_BYTES), config.language)
    if text is None:
        yield reject(config, path, "binary file", "it is not text in UTF-8, UTF-16 or Latin-1")
        return
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    title, body = split_gutenberg(text)
    header = "" if body is text else text[: text.find(body)]
    fields = dict(_FIELD.findall(header))
    number = _NUMBER.search(header)
    byline = None if header else _BYLINE.match(body, 0, _HEAD_CHARACTERS)
    yield from _documents(
        _Book(
            text=body,
            chapters=find_chapters(body),
            title=title or (byline and byline[1].strip()) or None,
            author=fields.get("Author", byline and byline[2].strip()),
            url=f"https://www.gutenberg.org/ebooks/{number[1]}" if number else None,
        ),
        path,
        config,
    )


def _read_epub(file: SourceFile, config: BooksCorpus) -> Iterator[RawDocument | Reject]:
    path = file.relative_path
    try:
        with file.open() as stream:
            epub = read_epub(stream, path)
    except NotAnEpubError as error:
        yield reject(config, path, "unreadable epub", str(error))
        return
    except DataError as error:
        yield reject(config, path, "damaged epub", str(error))
        return
    for member in epub.unsafe:
        yield reject(config, f"{path}: {member.path}", "unsafe archive member", member.why)
    if epub.missing:
        missing = ", ".join(epub.missing[:5])
        yield reject(config, f"{path}: missing", "missing chapter", f"{path} names {missing}; read without")
    if not epub.text.strip():
        yield reject(config, path, "no text", f"{path} has no page with text in its reading order")
        return
    _, body = split_gutenberg(epub.text)
    start = epub.text.find(body)
    chapters = (Chapter(chapter.start - start, chapter.heading) for chapter in epub.chapters)
    yield from _documents(
        _Book(
            text=body,
            chapters=tuple(chapter for chapter in chapters if 0 <= chapter.start < len(body)),
            title=epub.title,
            author=", ".join(epub.authors) or None,
            url=epub.url,
            licence=epub.rights,
            created=epub.date,
        ),
        path,
        config,
    )


def _documents(book: _Book, path: str, config: BooksCorpus) -> Iterator[RawDocument | Reject]:
    limit = min(config.max_window_characters or MAX_TEXT_BYTES, MAX_TEXT_BYTES)
    if config.max_window_characters is None and len(book.text) > limit:
        yield reject(config, path, "too large", f"{len(book.text)} characters; set max_window_characters")
        return
    windows = cut_windows(book.text, book.chapters, limit) or [Window(0, 0, "", "")]
    for number, window in enumerate(windows, start=1):
        name = path if len(windows) == 1 else f"{path}#{number}-of-{len(windows)}"
        yield RawDocument(
            name,
            book.text[window.start : window.end],
            origin=_origin(book, window, number, len(windows), path),
            url=book.url,
            title=book.title,
            licence=book.licence,
            created=book.created,
        )


def _origin(book: _Book, window: Window, number: int, num_windows: int, path: str) -> str:
    by = f"by {book.author}" if book.author else ""
    part = ""
    if num_windows > 1:
        headings = [window.first or "the beginning" if number == 1 else window.first, window.last]
        named = " to ".join(dict.fromkeys(heading for heading in headings if heading))
        part = f"part {number} of {num_windows}" + (f" ({named})" if named else "")
    about = ", ".join(words for words in (part, by) if words)
    return f"{path}: {about}" if about else path
