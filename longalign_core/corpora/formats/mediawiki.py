"""MediaWiki XML exports, plain or compressed: one document an article, mark-up taken off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote
from xml.etree.ElementTree import ParseError

import mwxml
from mwparserfromhell.parser import ParserError
from mwxml.element_iterator import ElementIterator, EventPointer

from longalign_core.config.corpus_formats import MediawikiCorpus
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.markup.wikitext import HIDDEN_LINKS, plain_text
from longalign_core.corpora.markup.xml_prologue import HEAD_BYTES, why_refused
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.unpacking import (
    COMPRESSIONS,
    DAMAGE,
    open_unpacked,
    raise_unless_damaged,
    without_compression,
)
from longalign_core.errors import DataError
from longalign_core.records import Reject
from longalign_core.source_files import SourceFile

log = logging.getLogger(__name__)

_ARTICLES = 0
_FILES_AND_CATEGORIES = (6, 14)


def read(unit: Unit, config: MediawikiCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read the latest text of every article; see `reading.Reader`. The position is the number of pages read.

    Redirects and pages of other namespaces are left out. A dump that breaks off gives the pages
    before the break. A dump with a document type declaration is refused as a whole: no real one has
    it, and entities defined there could unfold to any size. Names are titles, so that a newer dump
    gives the same ids.
    """
    (file,) = unit.files
    path = file.relative_path
    if not without_compression(path.lower()).endswith(".xml"):
        yield reject(config, path, "other file type", f"expected .xml, plain or {', '.join(COMPRESSIONS)}")
        return
    yield from _read_dump(file, config, cursor)


class _DumpStream:
    """What the XML parser reads from: all that can be unpacked, up to where damage begins."""

    def __init__(self, stream: BinaryIO) -> None:
        self.ended = False
        self.damage = ""
        self._head = b""
        # A buffered read() would drop what precedes the damage; not every stream has read1.
        self._read_some: Callable[[int], bytes] = getattr(stream, "read1", stream.read)

    def head(self) -> bytes:
        """The first bytes, which will be read again."""
        assert not self._head, "the head was taken already"
        while len(self._head) < HEAD_BYTES and (data := self._unpack(HEAD_BYTES)):
            self._head += data
        self.ended = False
        return self._head

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end or where damage begins."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._unpack(size)

    def _unpack(self, size: int) -> bytes:
        data = b""
        try:
            data = self._read_some(size)
        except DAMAGE as error:
            raise_unless_damaged(error)
            self.damage = f" ({type(error).__name__}: {error})"
        self.ended = not data
        return data


def _read_dump(file: SourceFile, config: MediawikiCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    with open_unpacked(file) as unpacked:
        stream = _DumpStream(unpacked)
        if why := why_refused(stream.head(), "mediawiki"):
            yield reject(config, file.relative_path, "not a MediaWiki dump", why + stream.damage)
            return
        title, num_pages = None, 0
        pages = _pages(stream)
        while True:
            try:
                page = next(pages, None)
            # What mwxml raises for structure it does not expect, beside the parser's own error.
            except (ParseError, mwxml.errors.MalformedXML, ValueError, TypeError, AttributeError) as error:
                where = f"after the page {title!r}" if title else "before its first page ended"
                if stream.ended:
                    log.warning("%s breaks off after %d pages; those are read", file.relative_path, num_pages)
                    yield reject(config, file.relative_path, "truncated dump", f"it breaks off {where}{stream.damage}")
                else:
                    yield reject(config, file.relative_path, "malformed dump", f"{type(error).__name__} {where}")
                return
            if page is None:
                return
            title, num_pages = page.title, num_pages + 1
            if num_pages > cursor.position:
                cursor.position = num_pages
                yield _read_page(page, file, config)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """One page with its latest text; None where it has none."""

    title: str
    namespace: int
    is_redirect: bool
    wikitext: str | None
    model: str | None
    created: str | None
    url: str | None
    hidden_links: tuple[str, ...]


def _pages(stream: _DumpStream) -> Iterator[_Page]:
    pointer = EventPointer.from_file(stream)
    _, root_element = next(pointer)
    dump = mwxml.Dump.from_element(ElementIterator(root_element, pointer))
    named = [space.name.lower() for space in dump.site_info.namespaces or () if space.id in _FILES_AND_CATEGORIES]
    base_url = (dump.site_info.base or "").rpartition("/")[0]
    for page in dump.pages:
        latest = max(page, key=lambda revision: str(revision.timestamp or ""), default=None)
        content = latest.slots.contents.get("main") if latest else None
        yield _Page(
            title=page.title,
            namespace=page.namespace,
            is_redirect=page.redirect is not None,
            wikitext=content.text if content else None,
            model=content.model if content else None,
            created=latest.timestamp.long_format() if latest and latest.timestamp else None,
            url=f"{base_url}/{quote(page.title.replace(' ', '_'))}" if base_url else None,
            hidden_links=(*HIDDEN_LINKS, *named),
        )
        root_element.clear()  # or the shells of all pages read stay in memory
    for _ in pointer.etree_events:  # raises where a second dump follows the end of this one
        pass


def _read_page(page: _Page, file: SourceFile, config: MediawikiCorpus) -> RawDocument | Reject:
    if page.namespace != _ARTICLES:
        return reject(config, page.title, "other namespace", f"namespace {page.namespace}")
    wikitext = page.wikitext or ""
    if page.is_redirect or wikitext[:9].upper() == "#REDIRECT":
        return reject(config, page.title, "redirect")
    if page.model not in (None, "wikitext"):
        return reject(config, page.title, "not wikitext", f"content model {page.model}")
    if len(wikitext) > MAX_TEXT_BYTES:
        return reject(config, page.title, "too large", f"{len(wikitext)} characters of mark-up")
    try:
        text = plain_text(wikitext, page.hidden_links)
    except (DataError, ParserError, RecursionError) as error:
        return reject(config, page.title, "unreadable mark-up", f"{type(error).__name__}: {error}")
    return RawDocument(
        page.title,
        text,
        origin=f"{file.relative_path}: {page.title}",
        url=page.url,
        title=page.title,
        created=page.created,
    )
