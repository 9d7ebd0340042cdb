"""Pages of XHTML as plain text: a paragraph a block, and where headings stand."""

from __future__ import annotations

import html
import re
from typing import Any

from lxml import etree

from longalign_core.corpora.markup.chapters import Chapter

_PARAGRAPHS = frozenset((
    "address", "article", "aside", "blockquote", "body", "center", "dd", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre", "section",
    "table", "ul",
))  # fmt: skip
_LINES = frozenset(("li", "tr", "br", "caption"))
_CELLS = frozenset(("td", "th"))
_UNREAD = frozenset(("head", "script", "style", "svg", "template", "audio", "video", "object"))
_CHAPTER_HEADINGS = frozenset(("h1", "h2"))
_SPACE = re.compile(r"[ \t\r\n\f]+")


class TextWriter:
    """Collects the text of pages, one after another."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._break = ""
        self._starts: list[int] = []

    def write_page(self, root: Any) -> None:
        """Add a page, given by its root element; a chapter begins there and at its first two kinds of headings."""
        self._separate("\n\n")
        self._starts.append(len(self._parts))
        unread: Any = None
        num_preformatted = 0
        for event, node in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
            name = _local_name(node)
            if event == "start":
                unread = node if unread is None and name in _UNREAD else unread
                if unread is None:
                    num_preformatted += name == "pre"
                    self._separate(_separator(name))
                    if name in _CHAPTER_HEADINGS:
                        self._starts.append(len(self._parts))
                    text = html.unescape(node.text) if node.tag is etree.Entity else node.text
                    self._write(text, is_preformatted=num_preformatted > 0)
                continue
            if unread is None:
                num_preformatted -= name == "pre"
                self._separate(_separator(name))
            elif node is unread:
                unread = None
            if unread is None and node is not root:
                self._write(node.tail, is_preformatted=num_preformatted > 0)

    def text(self) -> str:
        """All that was written."""
        return "".join(self._parts)

    def chapters(self) -> tuple[Chapter, ...]:
        """Where pages and headings begin in it."""
        offsets = [0]
        for part in self._parts:
            offsets.append(offsets[-1] + len(part))
        found: dict[int, str] = {}
        for index in self._starts:
            start = offsets[index]
            # The white space that keeps a chapter apart belongs to the one before.
            part = self._parts[index] if index < len(self._parts) else ""
            start += len(part) - len(part.lstrip())
            found.setdefault(start, self._heading(index))
        return tuple(Chapter(start, heading) for start, heading in sorted(found.items()))

    def _heading(self, index: int) -> str:
        text = "".join(self._parts[index : index + 20]).strip()
        return text.partition("\n")[0][:80]

    def _separate(self, separator: str) -> None:
        if len(separator) > len(self._break) or (separator and separator != " " and self._break == " "):
            self._break = separator

    def _write(self, text: str | None, *, is_preformatted: bool) -> None:
        if not text:
            return
        if not is_preformatted:
            text = _SPACE.sub(" ", text)
            if text.startswith(" "):
                text = text[1:]
                self._separate(" ")
            if not text:
                return
        self._parts.append((self._break if self._parts else "") + text.rstrip(" "))
        self._break = " " if text.endswith(" ") else ""


def _local_name(node: Any) -> str:
    return node.tag.rpartition("}")[2].lower() if isinstance(node.tag, str) else ""


def _separator(name: str) -> str:
    if name in _PARAGRAPHS:
        return "\n\n"
    return "\n" if name in _LINES else " " if name in _CELLS else ""
