"""How much of a text repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_WORDS = 1_000
"""N-grams are compared inside windows of so many words. In a book any five words come again somewhere;
the published thresholds are for web pages, and a window has the length of a long one."""

_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Words:
    """Words of a text as numbers.

    Attributes:
        ids: Equal for equal words. Shape (W,).
        lengths: In characters. Shape (W,).
    """

    ids: NDArray[np.uint64]
    lengths: NDArray[np.int64]


def number_words(words: Sequence[str]) -> Words:
    """Number words in order of their first coming."""
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.uint64, len(words))
    return Words(ids, np.fromiter(map(len, words), np.int64, len(words)))


def top_ngram_share(words: Words, size: int) -> float:
    """Share of characters in the commonest n-gram of each window."""
    covered = 0
    for ids, lengths in _windows(words):
        keys = _ngram_keys(ids, size)
        if len(keys):
            _, first, counts = np.unique(keys, return_index=True, return_counts=True)
            best = int(np.argmax(counts))
            if counts[best] > 1:
                covered += int(counts[best] * lengths[first[best] : first[best] + size].sum())
    return covered / max(int(words.lengths.sum()), 1)


def duplicate_ngram_share(words: Words, size: int) -> float:
    """Share of characters in n-grams that came before in the same window."""
    covered = 0
    for ids, lengths in _windows(words):
        keys = _ngram_keys(ids, size)
        if len(keys):
            _, first = np.unique(keys, return_index=True)
            is_again = np.ones(len(keys), bool)
            is_again[first] = False
            edges = np.zeros(len(ids) + 1, np.int64)
            np.add.at(edges, np.flatnonzero(is_again), 1)
            np.add.at(edges, np.flatnonzero(is_again) + size, -1)
            covered += int(lengths[np.cumsum(edges[:-1]) > 0].sum())
    return covered / max(int(words.lengths.sum()), 1)


def duplicate_shares(parts: Sequence[str]) -> tuple[float, float]:
    """Share of parts (lines, paragraphs) that came before, by number and by characters."""
    first = set(parts)
    num_characters = sum(map(len, parts))
    if not num_characters:
        return 0.0, 0.0
    return 1 - len(first) / len(parts), 1 - sum(map(len, first)) / num_characters


def _windows(words: Words) -> list[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    starts = range(0, len(words.ids), WINDOW_WORDS)
    return [(words.ids[start : start + WINDOW_WORDS], words.lengths[start : start + WINDOW_WORDS]) for start in starts]


def _ngram_keys(ids: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """A hash of each n-gram. Shape (W - size + 1,); 64 bits, so that chance repetitions do not count."""
    num_ngrams = max(len(ids) - size + 1, 0)
    keys = np.zeros(num_ngrams, np.uint64)
    for offset in range(size):
        keys = (keys + ids[offset : offset + num_ngrams] + np.uint64(1)) * _HASH_FACTOR
        keys ^= keys >> np.uint64(29)
    return keys
