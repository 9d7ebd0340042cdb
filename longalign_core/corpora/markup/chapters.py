"""Where the chapters of a book begin, and how a long book is cut into windows of whole chapters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_MAX_CHAPTERS = 5_000
"""A text with more headings is a dictionary or a play by the line, not a book of chapters."""
_BARE_HEADING_CHARACTERS = 200
_MAX_HEADING_CHARACTERS = 80
_NUMBER = (
    r"(?:[IVXLCDM]+|[ivxlcdm]+|\d+|(?:the\s+)?(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty(?:[- ]\w+)?))(?![^\W_])"
)
_PARTS = "chapter|book|part|volume|vol\\.|letter|canto|act|section|stave|chapitre|kapitel|cap[ií]tulo|livre|buch|teil"
_ALONE = "prologue|epilogue|preface|foreword|introduction|afterword|appendix|conclusion"
_HEADING = re.compile(
    # What follows a number on its line begins with a capital: "Part I of this agreement" is no heading.
    rf"(?i:(?:{_PARTS})\s+{_NUMBER})(?=\s*(?:$|[^\sa-z]))|(?i:{_ALONE})\s*[.:]?\s*$"
    r"|第\s*[0-9０-９零〇一二三四五六七八九十百千两]+\s*[章回卷部篇节節集折编編]|(?:序言|前言|楔子|引子|后记|後記|尾声|尾聲)\s*$"
)
_BARE_NUMBER = re.compile(r"(?:[IVXLC]+|\d{1,3})\.?\s*$")
_LINE = re.compile(r"[^\n]*\n?")
_ENDS = (
    re.compile(r"\n(?:[ \t]*\n)+"),
    re.compile(r"\n"),
    re.compile(r"(?<=[.!?])[\"”’)]*\s+|(?<=[。！？])[”’」』]*"),
    re.compile(r"\s+"),
)
"""Where a text can be cut, the best place first: paragraphs, lines, sentences, words."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """Where a chapter begins.

    Attributes:
        start: Offset in the text of the book.
        heading: What stands there; empty for what comes before the first heading.
    """

    start: int
    heading: str


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a book that becomes a document.

    Attributes:
        start: Offset in the text of the book.
        end: Offset behind it.
        first: Heading of the first chapter in it.
        last: Heading of the last one.
    """

    start: int
    end: int
    first: str
    last: str


def find_chapters(text: str) -> tuple[Chapter, ...]:
    """Chapters of a plain text, by lines such as `CHAPTER IV`, `Book the Second` or `第一章`.

    A heading follows an empty line. Lines of a bare number count where there are no other headings.
    """
    found = _headings(text, _HEADING)
    if len(found) < 2:
        found = _headings(text, _BARE_NUMBER) or found
    return tuple(found) if len(found) <= _MAX_CHAPTERS else ()


def cut_windows(text: str, chapters: Sequence[Chapter], max_characters: int) -> list[Window]:
    """Cut a book into as few windows as hold it, of lengths as even as its chapters allow.

    Every character is in exactly one window. A window has whole chapters, or is a part of a single
    chapter that is longer than a window: such a one is cut at paragraph ends, or where a paragraph
    is longer, at lines, sentences, words.

    Args:
        text: The book.
        chapters: Where its chapters begin, in order.
        max_characters: Length that no window exceeds.
    """
    pieces = _pieces(text, chapters) if text else []
    windows: list[Window] = []
    run: list[Window] = []
    for piece in pieces:
        if piece.end - piece.start <= max_characters:
            run.append(piece)
            continue
        windows += _join(run, max_characters)
        run = []
        cuts = _cut(text, piece.start, piece.end, max_characters)
        windows += [Window(start, end, piece.first, piece.last) for start, end in pairwise(cuts)]
    return windows + _join(run, max_characters)


def _headings(text: str, pattern: re.Pattern[str]) -> list[Chapter]:
    found = []
    follows_blank, offset = True, 0
    for line in _LINE.findall(text):
        words = line.strip()
        if follows_blank and words and len(words) <= _MAX_HEADING_CHARACTERS and pattern.match(words):
            found.append(Chapter(offset, words))
        follows_blank = not words
        offset += len(line)
    return found


def _pieces(text: str, chapters: Sequence[Chapter]) -> list[Window]:
    """The chapters as the smallest windows. A heading with nothing under it belongs to what follows."""
    starts = [chapter for chapter in chapters if 0 <= chapter.start < len(text)]
    if not starts or starts[0].start > 0:
        starts.insert(0, Chapter(0, ""))
    pieces: list[Window] = []
    bare: Chapter | None = None
    for chapter, end in zip(starts, [*(one.start for one in starts[1:]), len(text)], strict=True):
        begin = bare or chapter
        body = text[chapter.start : end].strip()
        if end < len(text) and len(body) <= _BARE_HEADING_CHARACTERS and body.count("\n\n") < 2:
            bare = begin
            continue
        pieces.append(Window(begin.start, end, begin.heading or chapter.heading, chapter.heading))
        bare = None
    return pieces


def _join(pieces: Sequence[Window], max_characters: int) -> list[Window]:
    """Neighbours put together: as few windows as possible and, of those ways, the most even lengths."""
    # best[i] is the cheapest way for the first i pieces: windows, sum of squared lengths, start of the last.
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for end in range(1, len(pieces) + 1):
        ways = []
        for start in range(end - 1, -1, -1):
            length = pieces[end - 1].end - pieces[start].start
            if length > max_characters:
                break
            ways.append((best[start][0] + 1, best[start][1] + length**2, start))
        best.append(min(ways))
    windows: list[Window] = []
    end = len(pieces)
    while end:
        start = best[end][2]
        windows.append(Window(pieces[start].start, pieces[end - 1].end, pieces[start].first, pieces[end - 1].last))
        end = start
    return windows[::-1]


def _cut(text: str, start: int, end: int, max_characters: int) -> list[int]:
    """Offsets that cut a stretch of text into parts of about the same length, its own bounds among them."""
    cuts = [start]
    while end - cuts[-1] > max_characters:
        num_left = -(-(end - cuts[-1]) // max_characters)
        wanted = cuts[-1] + (end - cuts[-1]) // num_left
        farthest = cuts[-1] + max_characters
        cuts.append(_place(text, wanted, cuts[-1] + max_characters // 2, farthest))
    return [*cuts, end]


def _place(text: str, wanted: int, nearest: int, farthest: int) -> int:
    """The place next to a wanted offset, of the best kind that has one in reach."""
    for pattern in _ENDS:
        ends = [found.end() for found in pattern.finditer(text, nearest, farthest) if found.end() > nearest]
        if ends:
            return min(ends, key=lambda end: abs(end - wanted))
    return farthest
