"""Texts as streams of hashed words, and of runs of words: what documents and answers are compared by.

Case, width, punctuation and white space do not count. A character of a script that is written
without spaces (Chinese, Japanese, Thai...) stands for half a word: Chinese words have two characters
as a rule, so that a run of five words and one of ten characters are about as telling. Lengths here
are therefore in half-words: 2 for a word, 1 for such a character.

Nothing is held of a text but the text itself and one block of it, about 2 MiB in all.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from longalign_core.compiled import compiled

Hashes = NDArray[np.uint64]
Lengths = NDArray[np.int64]

BLOCK_CHARACTERS = 1 << 16
_TABLE_SIZE = 0x20000
_ALONE = np.uint32(1 << 31)
_LAST_IDEOGRAPH = 0x3FFFF
_UNSPACED = tuple(range(0x0E00, 0x0F00)) + tuple(range(0x1000, 0x10A0)) + tuple(range(0x1780, 0x1800))
"""Thai, Lao, Burmese and Khmer; Chinese and Japanese are told by their names."""
_UNSPACED_NAMES = ("CJK ", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC ")

_SEED = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Words:
    """All words of a text at once, for texts that are short or looked at many times.

    Attributes:
        hashes: Equal for words that count as equal. Shape (W,).
        lengths: In half-words. Shape (W,).
        ends: Index of the character after each word. Shape (W,).
    """

    hashes: Hashes
    lengths: Lengths
    ends: Lengths

    @property
    def total(self) -> float:
        """Length of the text in words."""
        return int(self.lengths.sum()) / 2

    def runs(self, span: int) -> Hashes:
        """Hashes of the runs of at least `span` half-words; the last ends at the last word, and so on back."""
        return _runs(self.hashes, self.lengths, 0, span)


def words_of(text: str) -> Words:
    """The words of a text, about 24 bytes of memory each."""
    blocks = list(_blocks(text))
    empty = np.empty(0, np.int64)
    return Words(
        np.concatenate([np.empty(0, np.uint64), *(hashes for hashes, _, _ in blocks)]),
        np.concatenate([empty, *(lengths for _, lengths, _ in blocks)]),
        np.concatenate([empty, *(ends + number * BLOCK_CHARACTERS for number, (_, _, ends) in enumerate(blocks))]),
    )


def word_blocks(text: str) -> Iterator[tuple[Hashes, Lengths]]:
    """The words of a text, block by block.

    Yields:
        Hash of each word, and its length in half-words.
    """
    for hashes, lengths, _ in _blocks(text):
        yield hashes, lengths


def _blocks(text: str) -> Iterator[tuple[Hashes, Lengths, Lengths]]:
    """As `word_blocks`, with the end of each word, counted from the beginning of the block."""
    table = _folding()
    state = np.array([_SEED, 0], np.uint64)
    for start in range(0, len(text), BLOCK_CHARACTERS):
        block = text[start : start + BLOCK_CHARACTERS].encode("utf-32-le", "surrogatepass")
        yield _split(np.frombuffer(block, np.uint32), table, state, start + BLOCK_CHARACTERS >= len(text))


def run_blocks(text: str, spans: tuple[int, ...]) -> Iterator[tuple[int, tuple[Hashes, ...]]]:
    """Hashes of all runs of words of some lengths, block by block; the text is read once.

    A run ends at each word and is the shortest that is at least so long. A text that is shorter than
    that has no run.

    Args:
        text: Any text.
        spans: Lengths, in half-words.

    Yields:
        Length of the block, and for each length of runs the hashes of those that end in it, in the
        order of the text.
    """
    tail = np.empty(0, np.uint64), np.empty(0, np.int64)
    for hashes, lengths in word_blocks(text):
        seen = len(tail[0])
        words = np.concatenate([tail[0], hashes]), np.concatenate([tail[1], lengths])
        yield int(lengths.sum()), tuple(_runs(*words, seen, span) for span in spans)
        # A word has at least one half-word, so this many hold the beginning of every later run.
        tail = words[0][-max(spans, default=1) :], words[1][-max(spans, default=1) :]


def text_length(text: str) -> int:
    """Length of a text, in half-words."""
    return int(sum(lengths.sum() for _, lengths in word_blocks(text)))


@compiled
def mixed(value: np.uint64) -> np.uint64:
    """Spread a number over all bits (the finaliser of splitmix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@lru_cache(maxsize=1)
def _folding() -> NDArray[np.uint32]:
    """For each code point 0 where it parts words, else what it counts as; `_ALONE` marks a word of its own."""
    table = np.zeros(_TABLE_SIZE, np.uint32)
    unspaced = set(_UNSPACED)
    for code in range(_TABLE_SIZE):
        character = chr(code)
        if unicodedata.category(character)[0] not in "LNM":
            continue
        folded = unicodedata.normalize("NFKC", character).casefold()
        table[code] = ord(folded) if len(folded) == 1 else code
        if code in unspaced or unicodedata.name(chr(table[code]), "").startswith(_UNSPACED_NAMES):
            table[code] |= _ALONE
    return table


@compiled
def _split(
    codes: NDArray[np.uint32], table: NDArray[np.uint32], state: NDArray[np.uint64], is_last: bool
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    hashes = np.empty(len(codes) + 1, np.uint64)
    lengths = np.empty(len(codes) + 1, np.int64)
    ends = np.empty(len(codes) + 1, np.int64)
    count = 0
    word, is_open = state[0], state[1]
    for place in range(len(codes)):
        code = codes[place]
        # Beyond the table lie the planes of rare ideographs, and nothing that is written.
        beyond = code | _ALONE if code <= _LAST_IDEOGRAPH else np.uint32(0)
        folded = table[code] if code < len(table) else beyond
        is_alone = folded >= _ALONE
        if is_open and (folded == 0 or is_alone):
            hashes[count] = mixed(word)
            lengths[count] = 2
            ends[count] = place
            count += 1
            word, is_open = _SEED, np.uint64(0)
        if is_alone:
            hashes[count] = mixed((_SEED ^ np.uint64(folded)) * _PRIME)
            lengths[count] = 1
            ends[count] = place + 1
            count += 1
        elif folded:
            word = (word ^ np.uint64(folded)) * _PRIME
            is_open = np.uint64(1)
    if is_last and is_open:
        hashes[count] = mixed(word)
        lengths[count] = 2
        ends[count] = len(codes)
        count += 1
    state[0], state[1] = word, is_open
    return hashes[:count].copy(), lengths[:count].copy(), ends[:count].copy()


@compiled
def _runs(hashes: NDArray[np.uint64], lengths: NDArray[np.int64], seen: int, span: int) -> NDArray[np.uint64]:
    """Hashes of the runs that end at word `seen` or after: a polynomial that rolls along the words."""
    runs = np.empty(max(len(hashes) - seen, 0), np.uint64)
    powers = np.empty(span + 2, np.uint64)
    powers[0] = np.uint64(1)
    for place in range(1, span + 2):
        powers[place] = powers[place - 1] * _BASE
    count, first, length = 0, 0, 0
    value = np.uint64(0)
    for last in range(len(hashes)):
        value = value * _BASE + hashes[last]
        length += lengths[last]
        while length - lengths[first] >= span:
            value -= hashes[first] * powers[last - first]
            length -= lengths[first]
            first += 1
        if length >= span and last >= seen:
            runs[count] = mixed(value)
            count += 1
    return runs[:count].copy()
