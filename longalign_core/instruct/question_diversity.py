"""How different the questions of a set are from one another."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longalign_core.word_hashes import words_of

NEAR = 0.7
"""Jaccard similarity of the sets of word pairs from which on two questions are near-duplicates."""
_OPENINGS_SHOWN = 8
_OPENING = {"zh": 4}
_OPENING_WORDS = 3
_MOST_COMPARED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Of all questions in one language.

    Attributes:
        num_questions: How many.
        num_distinct: Different ones; case, punctuation and white space do not count.
        num_near: Those with a near-duplicate before them, equal ones included.
        distinct_n: Share of different n-grams of words (of Chinese: characters) among all, by n.
        openings: The most frequent beginnings (three words, four characters) with their numbers.
    """

    num_questions: int
    num_distinct: int
    num_near: int
    distinct_n: dict[int, float]
    openings: tuple[tuple[str, int], ...]


def measure_diversity(questions: Sequence[str], language: str) -> Diversity:
    """Compare the questions of a set.

    Near-duplicates are found by prefix filtering (Bayardo et al. 2007, "Scaling up all pairs similarity
    search"): two sets as like as `NEAR` share one of their few rarest pairs, so only questions that do are
    compared. Of questions that share such a pair with very many only some are compared, which may miss a few.

    Args:
        questions: In any order.
        language: Decides how long an opening is.
    """
    hashes = [words_of(question).hashes for question in questions]
    distinct = {one.tobytes(): one for one in hashes}
    num_near = len(hashes) - len(distinct) + _num_near(list(distinct.values()))
    openings = Counter(filter(None, (_opening(question, language) for question in questions)))
    return Diversity(
        num_questions=len(questions),
        num_distinct=len(distinct),
        num_near=num_near,
        distinct_n={size: _distinct_share(hashes, size) for size in (1, 2, 3)},
        openings=tuple(sorted(openings.items(), key=lambda one: (-one[1], one[0]))[:_OPENINGS_SHOWN]),
    )


def _distinct_share(questions: Sequence[np.ndarray], size: int) -> float:
    grams = [np.lib.stride_tricks.sliding_window_view(words, size) for words in questions if len(words) >= size]
    return len(np.unique(np.concatenate(grams), axis=0)) / sum(map(len, grams)) if grams else 0.0


def _num_near(questions: Sequence[np.ndarray]) -> int:
    pairs = [frozenset(zip(words.tolist(), words[1:].tolist(), strict=False)) for words in questions]
    counts = Counter(pair for one in pairs for pair in one)
    postings: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    num_near = 0
    for number, one in enumerate(pairs):
        rarest = sorted(one, key=lambda pair: (counts[pair], pair))
        prefix = rarest[: len(one) - int(np.ceil(NEAR * len(one))) + 1]
        candidates = {other for pair in prefix for other in postings[pair][-_MOST_COMPARED:]}
        num_near += any(len(one & pairs[other]) >= NEAR * len(one | pairs[other]) for other in candidates)
        for pair in prefix:
            postings[pair].append(number)
    return num_near


def _opening(question: str, language: str) -> str:
    if language in _OPENING:
        return "".join(character for character in question if character.isalnum())[: _OPENING[language]]
    return " ".join(question.lower().split()[:_OPENING_WORDS])
