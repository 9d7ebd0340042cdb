"""Finding questions that nearly equal one seen before, without comparing with all of them."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from math import ceil
from zlib import crc32

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
# Half of all Chinese questions hold them; pairs without them tell questions apart sooner.
_COMMON_HAN = frozenset("的是了在和与中有什么如何为哪些文请对及其一个怎样")


class NearQuestions:
    """Questions by their words, or by pairs of characters where they are Chinese.

    Two sets of n and m members whose Jaccard likeness is t or more share a member among the first
    n - ceil(t n) + 1 of one and the first m - ceil(t m) + 1 of the other, in any fixed order of all
    members (prefix filtering: Chaudhuri, Ganti, Kaushik 2006). So only those prefixes are indexed;
    the order puts rare members first, and long words are rare.
    """

    def __init__(self) -> None:
        self._seen: list[frozenset[str]] = []
        self._known: set[frozenset[str]] = set()
        self._by_member: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, question: str) -> None:
        """Remember a question; one of the same words is there already."""
        members, threshold = _members(question)
        if not members or frozenset(members) in self._known:
            return
        number = len(self._seen)
        self._seen.append(frozenset(members))
        self._known.add(self._seen[-1])
        for member in _prefix(members, threshold):
            self._by_member.setdefault(member, []).append(number)

    def likeness(self, question: str) -> float:
        """Jaccard likeness to the nearest question remembered; 0 where none nearly equals it."""
        members, threshold = _members(question)
        wanted = frozenset(members)
        if wanted in self._known:
            return 1.0
        least, most = ceil(threshold * len(wanted)), int(len(wanted) / threshold)
        best, met = 0.0, set()
        for member in _prefix(members, threshold):
            for number in self._by_member.get(member, ()):
                other = self._seen[number]
                if number in met or not least <= len(other) <= most:
                    continue
                met.add(number)
                shared = len(wanted & other)
                best = max(best, shared / (len(wanted) + len(other) - shared))
        return best if best >= threshold else 0.0


def _members(question: str) -> tuple[list[str], float]:
    """What a question is compared by, rare members first, and how alike two such sets nearly are."""
    if len(_HAN.findall(question)) * 2 > len("".join(question.split())):
        letters = "".join(_WORD.findall(_THE_TEXT_ZH.sub("文", question.lower())))
        pairs = {"".join(pair) for pair in pairwise(letters)} or {letters}
        return sorted(pairs, key=_rank_of_pair), _LIKE_PAIRS
    words = set(_WORD.findall(_THE_TEXT.sub("text", question.lower())))
    return sorted(map(sys.intern, words), key=lambda word: (-len(word), word)), _LIKE_WORDS


def _rank_of_pair(pair: str) -> tuple[int, int]:
    return len(_COMMON_HAN.intersection(pair)), crc32(pair.encode("utf-8", "surrogatepass"))


def _prefix(members: list[str], threshold: float) -> list[str]:
    return members[: len(members) - ceil(threshold * len(members)) + 1]
