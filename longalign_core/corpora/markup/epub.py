"""EPUB books: their text in reading order, and what they say of themselves."""

from __future__ import annotations

import html
import posixpath
import re
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import unquote

from lxml import etree

from longalign_core.corpora.archives import UnsafeMember, archive_members, reporting_damage
from longalign_core.corpora.markup.chapters import Chapter
from longalign_core.corpora.markup.markup_text import TextWriter
from longalign_core.errors import DataError

MAX_MARKUP_BYTES = 64 << 20
"""A book whose texts unpack to more is refused: it is a bomb, or no book."""
_MARKUP = (".xhtml", ".html", ".htm", ".xht", ".xml", ".opf")
_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_FONTS_ONLY = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_LISTS = ("toc", "landmarks", "page-list", "loi", "lot")
_DATE = re.compile(r"\d{4}(?:-\d\d(?:-\d\d)?)?")


class NotAnEpubError(DataError):
    """The file is not a book that can be read; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epub:
    """A book.

    Attributes:
        text: All of it, in reading order.
        chapters: Where its files and their headings begin.
        title: As its package file says, as all that follows.
        authors: Their names.
        language: Such as `en-GB`.
        rights: What may be done with it.
        date: Of publication, ISO 8601.
        url: Where it stands on the web.
        missing: Files of the reading order that it does not hold.
        unsafe: Members that are refused.
    """

    text: str
    chapters: tuple[Chapter, ...]
    title: str | None
    authors: tuple[str, ...]
    language: str | None
    rights: str | None
    date: str | None
    url: str | None
    missing: tuple[str, ...]
    unsafe: tuple[UnsafeMember, ...] = field(default=())


def read_epub(stream: BinaryIO, path: str) -> Epub:
    """Read a book. Nothing is written to disk, no entity is unfolded and nothing is fetched.

    Raises:
        NotAnEpubError: It is damaged, encrypted, too large, or no EPUB.
    """
    files, unsafe = _unpack(stream, path)
    package_path, package = _package(files, path)
    _refuse_encrypted(files, path)
    items = {item.get("id"): item for item in package.iterfind("{*}manifest/{*}item")}
    listed = {
        _target(package_path, one.get("href", "")) for one in package.iterfind("{*}guide/{*}reference[@type='toc']")
    }
    writer = TextWriter()
    missing: list[str] = []
    for reference in package.iterfind("{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        target = _target(package_path, item.get("href", "")) if item is not None else None
        if item is None or target is None or target not in files:
            missing.append(str(reference.get("idref") if item is None else item.get("href")))
        elif target not in listed and "nav" not in item.get("properties", "").split():
            root = _parse(files[target], path, lenient=True)
            if not _is_list(root):
                writer.write_page(root)
    addresses = (*_said(package, "identifier"), *_said(package, "source"))
    return Epub(
        text=writer.text(),
        chapters=writer.chapters(),
        title=next(iter(_said(package, "title")), None),
        authors=_said(package, "creator"),
        language=next(iter(_said(package, "language")), None),
        rights=next(iter(_said(package, "rights")), None),
        date=next((found[0] for date in _said(package, "date") if (found := _DATE.match(date))), None),
        url=next((address for address in addresses if address.startswith(("http://", "https://"))), None),
        missing=tuple(missing),
        unsafe=unsafe,
    )


def _unpack(stream: BinaryIO, path: str) -> tuple[dict[str, bytes], tuple[UnsafeMember, ...]]:
    files: dict[str, bytes] = {}
    unsafe: list[UnsafeMember] = []
    num_bytes = 0
    if not zipfile.is_zipfile(stream):
        raise NotAnEpubError(f"{path} is no zip file, or it breaks off")
    stream.seek(0)
    try:
        with reporting_damage(path):
            for member in archive_members(stream, "book.zip"):
                if isinstance(member, UnsafeMember):
                    unsafe.append(member)
                elif member.path.lower().endswith(_MARKUP):
                    num_bytes += member.size
                    if num_bytes > MAX_MARKUP_BYTES:
                        raise NotAnEpubError(f"{path} unpacks to more than {MAX_MARKUP_BYTES} bytes of text")
                    files[member.path] = member.read()
    except DataError:
        raise
    except (ValueError, OverflowError, struct.error) as error:
        raise NotAnEpubError(f"{path} is damaged ({type(error).__name__})") from None
    return files, tuple(unsafe)


def _package(files: dict[str, bytes], path: str) -> tuple[str, Any]:
    """Path and root element of the file that says what the book is made of."""
    if _CONTAINER not in files:
        raise NotAnEpubError(f"{path} has no {_CONTAINER}")
    for rootfile in _parse(files[_CONTAINER], path).iterfind("{*}rootfiles/{*}rootfile"):
        package_path = _target("", rootfile.get("full-path", ""))
        if package_path in files:
            return package_path, _parse(files[package_path], path)
    raise NotAnEpubError(f"{path} names no package file that it holds")


def _refuse_encrypted(files: dict[str, bytes], path: str) -> None:
    if _ENCRYPTION in files:
        methods = _parse(files[_ENCRYPTION], path).iterfind(".//{*}EncryptedData/{*}EncryptionMethod")
        if any(method.get("Algorithm") not in _FONTS_ONLY for method in methods):
            raise NotAnEpubError(f"{path} is encrypted")


def _parse(data: bytes, path: str, *, lenient: bool = False) -> Any:
    """Root element of a file; with `lenient`, of HTML that is no XML too.

    A document that declares entities is refused: no book needs them, and they could unfold to any size.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        if not lenient or b"<!ENTITY" in data:
            raise NotAnEpubError(f"{path} has a file that is not XML: {str(error)[:100]}") from None
        return _parse_html(data)
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise NotAnEpubError(f"{path} declares entities")
    return root


def _parse_html(data: bytes) -> Any:
    try:
        root = etree.fromstring(data, etree.HTMLParser(no_network=True, huge_tree=False, encoding=_encoding(data)))
    except (etree.XMLSyntaxError, ValueError):
        root = None
    return etree.Element("html") if root is None else root


def _encoding(data: bytes) -> str | None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return "utf-8"


def _target(base: str, href: str) -> str | None:
    """Path of what a file names; None where it leads out of the book."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(href.partition("#")[0])))
    return None if path.startswith(("/", "..")) else path


def _is_list(root: Any) -> bool:
    """Whether a page is only a list of contents or the like."""
    body = root.find("{*}body")
    sections = [] if body is None else [body, *body.iterfind("{*}nav"), *body.iterfind("{*}section")][:2]
    kinds = {kind for one in sections for kind in (one.get("{http://www.idpf.org/2007/ops}type") or "").split()}
    return bool(kinds.intersection(_LISTS))


def _said(package: Any, name: str) -> tuple[str, ...]:
    return tuple(_values(package, name))


def _values(package: Any, name: str) -> Iterator[str]:
    for element in package.iterfind(f"{{*}}metadata//{{http://purl.org/dc/elements/1.1/}}{name}"):
        value = " ".join(html.unescape("".join(element.itertext())).split())
        if value:
            yield value
