"""How much of an answer is taken from a text, and how much of it says again what it said before.

Both by runs of eight words (sixteen Chinese characters), in time linear in both texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longalign_core.compiled import compiled
from longalign_core.word_hashes import Words, mixed

SPAN = 16
"""Length of the runs compared, in half-words."""
_LONGEST_PERIOD = 100
_MIN_LOOP_WORDS = 30
_MIN_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Overlap:
    """What an answer has in common with texts, in words.

    Attributes:
        longest: Longest passage taken over word for word.
        words: Words in runs of eight or more that stand in a text.
    """

    longest: float
    words: float


def overlap(answer: Words, texts: Iterable[Words]) -> Overlap:
    """Passages of an answer that stand in texts; white space, case and punctuation do not count."""
    runs = answer.runs(SPAN)
    lengths = answer.lengths[len(answer.lengths) - len(runs) :]
    found = np.zeros(len(runs), np.bool_)
    longest = 0
    table, firsts = _index(runs)
    for text in texts:
        longest = max(longest, _find(runs, lengths, table, firsts, text.runs(SPAN), found))
    return Overlap(longest / 2, _covered(answer.lengths, found[firsts], SPAN) / 2)


def repeated_words(answer: Words) -> float:
    """Words of an answer that stand in runs of eight which it had already."""
    runs = answer.runs(SPAN)
    _, firsts = _index(runs)
    return _covered(answer.lengths, firsts < np.arange(len(runs)), SPAN) / 2


def looping_words(answer: Words) -> int:
    """Words of the longest passage that is one line or phrase at least six times in a row; 0 when there is none."""
    return _loop(answer.hashes, _LONGEST_PERIOD, _MIN_LOOP_WORDS, _MIN_ROUNDS)


@compiled
def _index(runs: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Open addressing: first place of each run by its hash; and of each run the first place of its like."""
    size = 2
    while size < 2 * len(runs):
        size *= 2
    table = np.full(size, -1, np.int64)
    firsts = np.empty(len(runs), np.int64)
    mask = np.uint64(size - 1)
    for place in range(len(runs)):
        slot = mixed(runs[place]) & mask
        while table[slot] >= 0 and runs[table[slot]] != runs[place]:
            slot = (slot + np.uint64(1)) & mask
        if table[slot] < 0:
            table[slot] = place
        firsts[place] = table[slot]
    return table, firsts


@compiled
def _find(
    runs: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    table: NDArray[np.int64],
    firsts: NDArray[np.int64],
    text: NDArray[np.uint64],
    found: NDArray[np.bool_],
) -> int:
    """Mark the runs that stand in a text, each at its first place; returns the longest passage, in half-words."""
    longest, length, place = 0, 0, -1
    mask = np.uint64(len(table) - 1)
    for run in text:
        if place >= 0 and place + 1 < len(runs) and runs[place + 1] == run:
            place += 1
            length += lengths[place]
        else:
            slot = mixed(run) & mask
            while table[slot] >= 0 and runs[table[slot]] != run:
                slot = (slot + np.uint64(1)) & mask
            place = table[slot]
            length = SPAN
        if place >= 0:
            found[firsts[place]] = True
            longest = max(longest, length)
    return longest


@compiled
def _covered(lengths: NDArray[np.int64], found: NDArray[np.bool_], span: int) -> int:
    """Half-words of an answer that lie in a run that was found; runs end at the last words."""
    offset = len(lengths) - len(found)
    covered, open_length = 0, 0
    for place in range(len(lengths) - 1, -1, -1):
        if place >= offset and found[place - offset]:
            open_length = span
        if open_length > 0:
            covered += lengths[place]
            open_length -= lengths[place]
    return covered


@compiled
def _loop(hashes: NDArray[np.uint64], longest_period: int, min_words: int, min_rounds: int) -> int:
    longest = 0
    for period in range(1, min(longest_period, len(hashes) // min_rounds) + 1):
        needed = max(min_words, period * min_rounds)
        same = 0
        for place in range(period, len(hashes)):
            same = same + 1 if hashes[place] == hashes[place - period] else 0
            if same and same + period >= needed:
                longest = max(longest, same + period)
    return longest
