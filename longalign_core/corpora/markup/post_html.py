"""The HTML of posts (paragraphs, lists, quotes, code) as text that reads the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml.etree import fromstring
from lxml.html import HtmlElement, HTMLParser

from longalign_core.errors import DataError

_TABLE_PARTS = frozenset(("table", "thead", "tbody", "tfoot", "caption"))
_BLOCKS = _TABLE_PARTS | {
    "html",
    "body",
    "p",
    "div",
    "section",
    "article",
    "center",
    "details",
    "summary",
    "dl",
    "dt",
    "dd",
}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_HIDDEN = frozenset(("script", "style", "template", "noscript", "head", "iframe", "object"))
_PARSER = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
_SPACES = re.compile(r"[ \t\r\n\f]{2,}|[\t\r\n\f]")
_FENCES = re.compile(r"`{3,}")
_LANGUAGE = re.compile(r"(?:^|\s)(?:lang|language)-([\w+#-]+)")


def html_text(html: str) -> str:
    """Text of a piece of HTML, blocks parted by blank lines.

    Code blocks stand between fences, as they are; list items and quotes have their marks, headings
    theirs, two levels lower than in the source. Links and emphasis leave their words, images nothing.

    Raises:
        DataError: Elements are nested deeper than the parser follows, so that text would be lost.
    """
    if not html.strip():
        return ""
    root = fromstring(f"<body>{html}</body>", _PARSER)
    if _PARSER.error_log.filter_from_fatals():
        raise DataError("its HTML is nested too deep")
    return "\n\n".join(_blocks(root))


def _blocks(element: HtmlElement) -> Iterator[str]:
    """The blocks in an element; runs of words between them are blocks too."""
    words: list[str] = [element.text or ""]
    for child in element:
        tag = child.tag if isinstance(child.tag, str) else None
        if tag is None or tag in _HIDDEN:
            pass
        elif (inner := _block(child, tag)) is None:
            words += _inline(child, tag)
        else:
            if text := _folded(words):
                yield text
            words = []
            yield from inner
        words.append(child.tail or "")
    if text := _folded(words):
        yield text


def _block(element: HtmlElement, tag: str) -> list[str] | None:
    """The blocks an element stands for; None for one that is part of a line."""
    if tag in _BLOCKS:
        return list(_blocks(element))
    if tag == "pre":
        return [_fenced(element)]
    if tag in ("ul", "ol"):
        return [_list(element, numbered=tag == "ol")]
    if tag == "tr":
        cells = (" ".join(" ".join(_blocks(cell)).split()) for cell in element)
        return [" | ".join(cells)]
    if tag == "blockquote":
        quoted = "\n\n".join(_blocks(element))
        return ["\n".join(f"> {line}".rstrip() for line in quoted.split("\n"))] if quoted else []
    if tag in _HEADINGS:
        text = " ".join(" ".join(_blocks(element)).split())
        return [f"{'#' * min(6, _HEADINGS[tag] + 2)} {text}"] if text else []
    if tag == "hr":
        return ["---"]
    # A link or an emphasis around paragraphs is not part of a line.
    return list(_blocks(element)) if any(True for _ in element.iter("p", "pre", "ul", "ol", "blockquote")) else None


def _inline(element: HtmlElement, tag: str) -> list[str]:
    if tag == "br":
        return ["\v"]
    if tag == "code":
        code = element.text_content()
        return ["`", code, "`"] if code.strip() and "`" not in code else [code]
    words = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str) and child.tag not in _HIDDEN:
            words += _inline(child, child.tag)
        words.append(child.tail or "")
    return words


def _folded(words: list[str]) -> str:
    """A run of words with single spaces, line breaks where the HTML asked for them."""
    text = _SPACES.sub(" ", "".join(words))
    return "\n".join(line.strip(" ") for line in text.split("\v")).strip("\n")


def _fenced(element: HtmlElement) -> str:
    for line_break in element.iter("br"):
        line_break.tail = "\n" + (line_break.tail or "")
    code = element.text_content().strip("\n")
    longest = max((len(fence) for fence in _FENCES.findall(code)), default=2)
    fence = "`" * (longest + 1)
    inner = element.find("code")
    classes = f"{element.get('class') or ''} {inner.get('class') or '' if inner is not None else ''}"
    language = _LANGUAGE.search(classes)
    name = language.group(1) if language and language.group(1) != "none" else ""
    return f"{fence}{name}\n{code}\n{fence}"


def _list(element: HtmlElement, *, numbered: bool) -> str:
    start = element.get("start") or "1"
    number = int(start) if start.isascii() and start.isdigit() and len(start) < 10 else 1
    items: list[str] = []
    is_loose = False
    for child in element:
        if not isinstance(child.tag, str):
            continue
        blocks = list(_blocks(child)) if child.tag == "li" else _block(child, child.tag) or list(_blocks(child))
        if not blocks:
            continue
        mark = f"{number}. " if numbered else "- "
        number += 1
        is_tight = len(blocks) == 1 or all(block.lstrip().startswith(("- ", "1. ")) for block in blocks[1:])
        is_loose |= not is_tight
        lines = ("\n" if is_tight else "\n\n").join(blocks).split("\n")
        indent = " " * len(mark)
        items.append("\n".join(f"{indent if place else mark}{line}".rstrip() for place, line in enumerate(lines)))
    return ("\n\n" if is_loose else "\n").join(items)
