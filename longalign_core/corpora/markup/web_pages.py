"""Web pages: from bytes to characters, and from HTML to the main text."""

from __future__ import annotations

import codecs
import logging
import re
from dataclasses import dataclass

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_META_CHARSET = re.compile(rb"<meta\b[^<>]{0,300}?charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{2,40})", re.I)
_META_BYTES = 4096
# Browsers read these labels as a larger encoding, and pages are made for browsers.
_AS_BROWSERS_READ = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "tis-620": "cp874",
}
_SEVEN_BIT = ("iso2022", "hz")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Page:
    """What a web page says.

    Attributes:
        title: Of the page, as it names itself.
        text: Its main text; empty where none was found.
    """

    title: str | None
    text: str


def decode_page(data: bytes, header_charset: str | None) -> str:
    """Characters of a page: by its byte order mark, as UTF-8 if it is that, else as it declares.

    Much is UTF-8 that declares something else, and hardly any other text happens to be valid UTF-8.
    Then the charset of the HTTP header counts, then that of the page, then a guess from the bytes.
    What is no character in the encoding becomes U+FFFD.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    meta = _META_CHARSET.search(data, 0, _META_BYTES)
    declared = [
        codec for label in (header_charset, meta and meta[1].decode("ascii", "replace")) if (codec := _codec(label))
    ]
    if not any(codec.startswith(_SEVEN_BIT) for codec in declared):
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            pass
    for codec in declared:
        if codec != "utf-8":
            return data.decode(codec, errors="replace")
    if declared:
        return data.decode("utf-8", errors="replace")
    return data.decode(_guess(data), errors="replace")


def extract_page(html: str) -> Page | None:
    """Title and main text of an HTML page; None where the parser finds no page in it.

    The main text by trafilatura: comments of readers left out, tables kept. It favours recall, as what
    it leaves out of a long technical page is whole sections and what it lets in are a few lines, which
    quality rules see to; and it is the fastest of its settings. Its own metadata is not asked for:
    its search for dates takes longer than the text.
    """
    import trafilatura  # takes a fifth of a second

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # else it writes a line for each page without text
    tree = trafilatura.load_html(html)
    if tree is None:
        return None
    title = tree.findtext(".//title") or ""
    found = trafilatura.bare_extraction(tree, favor_recall=True, fast=True, include_comments=False)
    return Page(_SPACE.sub(" ", title).strip() or None, found.text if found is not None else "")


def _codec(label: str | None) -> str | None:
    if not label:
        return None
    try:
        name = codecs.lookup(label).name
        b"".decode(name)  # refused by codecs that do not give text, such as hex
    except LookupError:
        return None
    return _AS_BROWSERS_READ.get(name, name)


def _guess(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:10_000]).best()
    return best.encoding if best is not None else "cp1252"
