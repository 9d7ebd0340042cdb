"""The HTML that chat pages were saved as, as Markdown."""

from __future__ import annotations

import re

from lxml.etree import fromstring, tostring
from lxml.html import HtmlElement, HTMLParser

from longalign_core.corpora.markup.post_html import html_text

# What a person typed may hold tags, too; what the page wrapped begins with a block of its own.
_WRAPPED = re.compile(r"\s*<(div|p|ol|ul|pre|h[1-6]|blockquote|table|hr)\b", re.IGNORECASE)
# The page's own words in saved turns, as FastChat's cleaning of these exports names them
# (fastchat/data/clean_sharegpt.py): which of several replies is shown, and a button below a text.
_CHOSEN_REPLY = re.compile(r"\A\d+ / \d+\s*")
_COPIED = re.compile(r"Copy\d+ chars / \d+ words")
_PARSER = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)


def chat_text(turn: str) -> str:
    """Text of one turn of a saved chat; one that is not wrapped in HTML is given as it is.

    Code stands between fences with its language, without the bar and the button that the page puts
    above it.

    Raises:
        DataError: Elements are nested deeper than the parser follows, so that text would be lost.
    """
    if not _WRAPPED.match(turn):
        return turn
    root = fromstring(f"<body>{turn}</body>", _PARSER)
    for block in root.iter("pre"):
        _keep_code(block)
    text = html_text(tostring(root, encoding="unicode", method="html"))
    return _COPIED.sub("", _CHOSEN_REPLY.sub("", text)).strip()


def _keep_code(block: HtmlElement) -> None:
    """Leave nothing but the code in a block; a block without code inside stays as it is."""
    code = next(block.iter("code"), None)
    if code is None:
        return
    code.tail = None
    for child in list(block):
        block.remove(child)
    block.text = None
    block.append(code)
