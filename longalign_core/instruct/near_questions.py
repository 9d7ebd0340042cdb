"""Finding questions that nearly equal one seen before, without comparing with all of them."""

from __future__ import annotations

import re
import sys
from collections import Counter
from itertools import pairwise
from math import ceil

# Jaccard likeness from which two questions count as one. Pairs of characters change faster than words: one other
# character among twenty takes two pairs away and brings two.
_LIKE_WORDS = 0.8
_LIKE_PAIRS = 0.7
_HAN = re.compile(r"[\u3400-\u9fff]")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
# "the main topic of this article" and "the text's main topic" ask for the same.
_THE_TEXT = re.compile(
    r"\b(?:this|the|that|given|above|provided)(?:\s+(?:given|above|provided|whole|entire|full))?\s+"
    r"(?:text|document|article|passage|excerpt|paper|book|story|content)\b|"
    r"\b(?:text|document|article|passage|excerpt)\b",
    re.IGNORECASE,
)
_THE_TEXT_ZH = re.compile(
    r"(?:这|该|此|上述|以上|上)(?:一?[篇部段个份])?(?:文章|文本|文档|文件|作品|内容)|本文|全文|文中|文章|文本|文档"
)


class NearQuestions:
    """Questions by their words, or by pairs of characters where they are Chinese.

    Two sets of n and m members whose Jaccard likeness is t or more share a member among the first
    n - ceil(t n) + 1 of one and the first m - ceil(t m) + 1 of the other, in any one order of all
    members (prefix filtering: Chaudhuri, Ganti, Kaushik 2006). So only those prefixes are indexed, rare
    members first; how rare they are is counted anew whenever the questions have doubled.
    """

    def __init__(self) -> None:
        self._seen: dict[frozenset[str], float] = {}
        self._by_member: dict[str, list[frozenset[str]]] = {}
        self._frequency: Counter[str] = Counter()
        self._count_at = 64

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, question: str) -> None:
        """Remember a question; one of the same words is there already."""
        members, threshold = _members(question)
        if not members or members in self._seen:
            return
        self._seen[members] = threshold
        if len(self._seen) < self._count_at:
            self._index(members, threshold)
            return
        self._count_at *= 2
        self._frequency = Counter(member for one in self._seen for member in one)
        self._by_member = {}
        for one, its_threshold in self._seen.items():
            self._index(one, its_threshold)

    def likeness(self, question: str) -> float:
        """Jaccard likeness to the nearest question remembered; 0 where none nearly equals it."""
        members, threshold = _members(question)
        if members in self._seen:
            return 1.0
        least, most = ceil(threshold * len(members)), int(len(members) / threshold)
        best = 0.0
        for member in self._prefix(members, threshold):
            for other in self._by_member.get(member, ()):
                if least <= len(other) <= most:
                    shared = len(members & other)
                    best = max(best, shared / (len(members) + len(other) - shared))
        return best if best >= threshold else 0.0

    def _index(self, members: frozenset[str], threshold: float) -> None:
        for member in self._prefix(members, threshold):
            self._by_member.setdefault(member, []).append(members)

    def _prefix(self, members: frozenset[str], threshold: float) -> list[str]:
        # Members not counted yet are the rarest. Equal counts are told apart by the member: the order is one for all.
        by_rarity = sorted(members, key=lambda member: (self._frequency.get(member, 0), member))
        return by_rarity[: len(members) - ceil(threshold * len(members)) + 1]


def _members(question: str) -> tuple[frozenset[str], float]:
    """What a question is compared by, and how alike two such sets are when the questions nearly equal each other."""
    if len(_HAN.findall(question)) * 2 > len("".join(question.split())):
        letters = "".join(_WORD.findall(_THE_TEXT_ZH.sub("文", question.lower())))
        return frozenset({sys.intern("".join(pair)) for pair in pairwise(letters)} or {letters}), _LIKE_PAIRS
    return frozenset(map(sys.intern, _WORD.findall(_THE_TEXT.sub("text", question.lower())))), _LIKE_WORDS
