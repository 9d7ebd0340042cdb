"""Verdicts in a judge's words, and how text under judgement is kept from looking like one."""

from __future__ import annotations

import re

from longalign_core.evaluation.suites import Rating

_VERDICT = re.compile(r"\[\[\s*([-+]?\d[\d.,]*(?:\s*/\s*\d+)?)\s*\]\]", re.ASCII)
_OPENING = re.compile(r"\[(?=\s*\[\s*[-+]?\d)")
_SECTION = re.compile(r"\[([^\W\d][^\[\]{}\n]*)\]")


def parse_rating(reply: str, minimum: int, maximum: int) -> Rating:
    """The last `[[number]]` of a judge's reply.

    The last, because judges weigh and correct themselves. Anything but a whole number in range is
    unscored: a guess would be a number that nobody gave.
    """
    verdicts = _VERDICT.findall(reply)
    if not verdicts:
        return Rating(unscored="no verdict" if reply.strip() else "empty reply")
    last = verdicts[-1]
    if not re.fullmatch(r"\d{1,9}", last):
        return Rating(unscored=f"verdict {last[:20]} is not a whole number")
    if not minimum <= int(last) <= maximum:
        return Rating(unscored=f"verdict {last} is outside {minimum} to {maximum}")
    return Rating(score=float(last))


def neutralised(answer: str, template: str) -> str:
    """An answer that can neither carry a verdict nor close its own section of a judge prompt.

    `[[9]]` becomes `[ [9]]`, and the template's section marks such as `[Question]` turn into round
    brackets. All else stays as the model wrote it, newlines included.
    """
    opened = _OPENING.sub("[ ", answer)
    marks = {mark.casefold() for mark in _SECTION.findall(template)}
    return _SECTION.sub(lambda found: f"({found[1]})" if found[1].strip().casefold() in marks else found[0], opened)
