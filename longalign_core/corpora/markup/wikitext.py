"""Wikitext to the words of the article."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mwparserfromhell.parser import CTokenizer, tokens
from mwparserfromhell.parser.builder import Builder
from mwparserfromhell.parser.tokenizer import Tokenizer
from mwparserfromhell.parser.tokens import Token

from longalign_core.errors import DataError

HIDDEN_LINKS = ("file", "image", "media", "category")
_HIDDEN_TAGS = ("ref", "references", "table", "gallery", "timeline", "imagemap", "templatestyles", "score", "math")
_STRAY_NOTES = re.compile(r"<ref\b[^<>]{0,500}(?:/>|>.{0,2000}?</ref\s*>)", re.S | re.I)
_TABLE_LINES = ("{|", "|", "!")
_GENITIVE = re.compile(r"(?<=\w)'''s\b")  # of an italic word: two marks and an apostrophe
_STYLE_MARKS = re.compile(r"'{2,}")
_OPEN_TAGS = re.compile(r"<(?!(?:br|hr|li|d[dt]|t[dhr]|wbr|p)\b)[a-z](?![^<>]*/>)", re.I)
_HALF_TAGS = re.compile(r"<[a-z][^<>]*(?=<|\Z)", re.I)
_MAX_HALF_TAGS = 500
_MAX_SEARCH = 100_000_000
_TEMPLATE_ENDS = (tokens.TemplateClose,)
_LINK_ENDS = (tokens.WikilinkClose,)
_TAG_ENDS = (tokens.TagCloseClose, tokens.TagCloseSelfclose)
_COMMENT_ENDS = (tokens.CommentEnd,)


def plain_text(wikitext: str, hidden_links: Sequence[str] = HIDDEN_LINKS) -> str:
    """Text of an article without mark-up, templates, footnotes, tables, files and categories.

    Args:
        wikitext: MediaWiki mark-up.
        hidden_links: Lower-case namespaces whose links show no text of the article.

    Raises:
        DataError: So much is never closed in it that parsing would take minutes.
        ParserError: The mark-up defeats the parser.
        RecursionError: It is nested beyond what any article has.
    """
    _refuse_unclosed(wikitext)
    # Style marks are taken off below: authors leave them unbalanced, and one such pair makes the
    # parser take a whole paragraph's mark-up for text.
    found = (CTokenizer or Tokenizer)().tokenize(wikitext, 0, True)
    code = Builder().build(_shown(found, frozenset(hidden_links)))
    text = _STRAY_NOTES.sub("", str(code.strip_code(normalize=True, collapse=True)))
    text = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith(_TABLE_LINES))
    return _STYLE_MARKS.sub("", _GENITIVE.sub("'s", text))


def _refuse_unclosed(wikitext: str) -> None:
    """The parser looks through the rest of a page for the end of whatever is open, each time anew."""
    num_tags = max(0, len(_OPEN_TAGS.findall(wikitext)) - wikitext.count("</"))
    num_tables = max(0, wikitext.count("{|") - wikitext.count("|}"))
    num_half_tags = len(_HALF_TAGS.findall(wikitext))
    if (num_tags + num_tables) * len(wikitext) > _MAX_SEARCH or num_half_tags > _MAX_HALF_TAGS:
        raise DataError(f"{num_tags} tags and {num_tables} tables are never closed, {num_half_tags} tags break off")


def _shown(found: Sequence[Token], hidden_links: frozenset[str]) -> list[Token]:
    """The tokens that show text of the article.

    Nodes are built of these alone: building those of templates and footnotes, to throw them away,
    takes most of the time that a page takes.
    """
    shown: list[Token] = []
    place, end = 0, len(found)
    while place < end:
        token = found[place]
        kind = type(token)
        closing: tuple[type[Token], ...] | None = None
        if kind is tokens.TemplateOpen:
            closing = _TEMPLATE_ENDS
        elif kind is tokens.CommentStart:
            closing = _COMMENT_ENDS
        elif kind is tokens.TagOpenOpen or kind is tokens.WikilinkOpen:
            words = _words(found[place + 1]).strip().lower()
            if kind is tokens.TagOpenOpen and words in _HIDDEN_TAGS:
                closing = _TAG_ENDS
            elif kind is tokens.WikilinkOpen and ":" in words and words.partition(":")[0].rstrip() in hidden_links:
                closing = _LINK_ENDS
        if closing is None:
            shown.append(token)
            place += 1
        else:
            place = _behind(found, place, kind, closing)
    return shown


def _behind(found: Sequence[Token], place: int, opening: type[Token], closing: tuple[type[Token], ...]) -> int:
    """The place behind what opens at `place`."""
    depth = 0
    for index in range(place, len(found)):
        kind = type(found[index])
        if kind is opening:
            depth += 1
        elif kind in closing:
            depth -= 1
            if not depth:
                return index + 1
    return len(found)


def _words(token: Token) -> str:
    return str(token.text) if type(token) is tokens.Text else ""
