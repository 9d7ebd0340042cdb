"""The words that an answer says itself: without what it quotes and without code."""

from __future__ import annotations

import re

_PLACEHOLDER = "□"
_FENCE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_QUOTES = re.compile(
    r'"[^"\n]+"|“[^“”]+”|「[^「」]+」|『[^『』]+』|«[^«»]+»'
    # An apostrophe inside a word neither opens nor closes.
    r"|(?<!\w)['‘](?:[^'‘’\n]|(?<=\w)['’](?=\w))+['’](?!\w)"
)
_QUOTED_LINES = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
_CODE_LINE = re.compile(
    r"[;{}]\s*$|^\s*(?:def |class |import |from \w+ import|return\b|if .*:$|for .*:$|while .*:$|#include|</?\w+[^>]*>$"
    r"|(?:public|private|static|const|let|var|func|fn)\s)|^\s*[\w.]+\(.*\)\s*$|^\s*[\w.\[\]]+ [-+*/]?= \S"
)


def without_code(text: str) -> str:
    """A text without code blocks and code inside lines."""
    return _INLINE_CODE.sub(_PLACEHOLDER, _FENCE.sub(_PLACEHOLDER, text))


def own_words(text: str) -> str:
    """A text without code, quotations and quoted lines; each leaves a sign in its place."""
    return _QUOTES.sub(_PLACEHOLDER, _QUOTED_LINES.sub(_PLACEHOLDER, without_code(text)))


def is_mostly_code(text: str) -> bool:
    """Whether most lines look like program text or markup, though no fence says so."""
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) > 1 and 2 * sum(_CODE_LINE.search(line) is not None for line in lines) > len(lines)


def has_open_fence(text: str) -> bool:
    """Whether a code block is begun and not closed."""
    mark = ""
    for line in text.splitlines():
        begun = line.lstrip()[:3]
        if not mark and begun in ("```", "~~~"):
            mark = begun
        elif mark and line.strip().strip(mark[0]) == "" and begun == mark:
            mark = ""
    return bool(mark)
