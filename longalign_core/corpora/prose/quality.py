"""Quality rules for prose: Gopher's for documents, C4's for the lines of web pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from longalign_core.corpora.prose.repetition import (
    duplicate_ngram_share,
    duplicate_shares,
    number_words,
    top_ngram_share,
)

UNSPACED = ("zh", "ja")
"""Languages written without spaces. A character counts as a word, and two as a word in n-grams."""

_STOP_WORDS = {
    "en": frozenset(["the", "be", "to", "of", "and", "that", "have", "with"]),
    "zh": frozenset("的是了在和有不这"),
}
_TOP_NGRAMS = {2: 0.20, 3: 0.18, 4: 0.16}
_DUPLICATE_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
_BULLETS = ("•", "‣", "▪", "●", "◦", "○", "■", "□", "·", "- ", "* ")
_UNSPACED_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_PARAGRAPH_ENDS = re.compile(r"\n{2,}")
_SENTENCE_ENDS = re.compile(r"[.!?](?=\s|$|[\"”’')])|[。！？]")
_LINE_END_MARKS = tuple('.!?"”’。！？”』」…')
_POLICY = re.compile(
    r"terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies|javascript|隐私政策|使用条款",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A rule that a text does not keep.

    Attributes:
        reason: Short and fixed.
        detail: Rule, value and threshold.
    """

    reason: str
    detail: str


def gopher_failure(text: str, language: str) -> Failure | None:
    """The first of Gopher's rules (Rae et al. 2021, appendix A.1.1) that a text fails.

    Thresholds are the paper's. Departures: there is no upper bound on words, as long documents are
    what is wanted; n-grams are compared inside windows (`repetition`); rules about words are left out or
    counted by character for languages without spaces; languages without a list of stop words skip that rule.
    """
    return next(_gopher_failures(text, language), None)


def keep_prose_lines(text: str) -> str | Failure:
    """C4's rules (Raffel et al. 2020, section 2.2): the lines of a page that are prose, or why it is left out.

    A line stays that ends like a sentence, has five words (or ten characters of a script without spaces),
    and speaks neither of JavaScript nor of policies. A page is left out that has a curly bracket,
    "lorem ipsum" or, of what stays, fewer than three sentences. Departures: the paper's list of bad
    words is not used, citation marks such as `[1]` stay, as code has the like, and spans that repeat
    are left to the search for duplicates.
    Only for texts with a paragraph a line: of a hard-wrapped book little would stay.
    """
    if "{" in text:
        return Failure("quality: page", "c4: it has a curly bracket")
    if "lorem ipsum" in text.lower():
        return Failure("quality: page", "c4: it has 'lorem ipsum'")
    kept = [line for line in text.split("\n") if not line or _is_prose(line)]
    prose = re.sub(r"\n{4,}", "\n\n\n", "\n".join(kept)).strip("\n")
    num_sentences = sum(1 for _, _ in zip(range(3), _SENTENCE_ENDS.finditer(prose), strict=False))
    if num_sentences < 3:
        return Failure("quality: page", f"c4: {num_sentences} sentences in lines of prose, fewer than 3")
    return prose


def _is_prose(line: str) -> bool:
    line = line.strip()
    if not line.endswith(_LINE_END_MARKS) or line.endswith("..."):
        return False
    has_words = len(line.split(None, 5)) >= 5 or len(_UNSPACED_WORDS.findall(line[:200])) >= 10
    return has_words and _POLICY.search(line) is None


def _gopher_failures(text: str, language: str) -> Iterator[Failure]:
    is_unspaced = language in UNSPACED
    words = _UNSPACED_WORDS.findall(text) if is_unspaced else text.split()
    yield from _below("words", len(words), 50, "length")
    yield from _word_failures(text, words, language)
    lines = [line.strip() for line in text.split("\n") if line and not line.isspace()]
    num_lines = max(len(lines), 1)
    yield from _above("lines with a bullet", sum(line.startswith(_BULLETS) for line in lines) / num_lines, 0.9, "lists")
    cut_off = sum(line.endswith(("...", "…")) for line in lines) / num_lines
    yield from _above("lines with an ellipsis at the end", cut_off, 0.3, "ellipses")
    paragraphs = [paragraph for paragraph in _PARAGRAPH_ENDS.split(text) if paragraph.strip()]
    for unit, parts in (("lines", lines), ("paragraphs", paragraphs)):
        by_number, by_characters = duplicate_shares(parts)
        yield from _above(f"duplicate {unit}", by_number, 0.30, "repetition")
        yield from _above(f"characters in duplicate {unit}", by_characters, 0.20, "repetition")
    numbered = number_words(words)
    factor = 2 if is_unspaced else 1
    for size, threshold in _TOP_NGRAMS.items():
        share = top_ngram_share(numbered, factor * size)
        yield from _above(f"characters in the top {size}-gram", share, threshold, "repetition")
    for size, threshold in _DUPLICATE_NGRAMS.items():
        share = duplicate_ngram_share(numbered, factor * size)
        yield from _above(f"characters in duplicate {size}-grams", share, threshold, "repetition")
        if share <= min(_DUPLICATE_NGRAMS.values()):
            return  # what a repeated longer n-gram covers, repeated shorter ones cover too


def _word_failures(text: str, words: list[str], language: str) -> Iterator[Failure]:
    num_words = len(words)
    ellipses = text.count("…") + text.count("...")
    for symbol, number in (("hashes", text.count("#")), ("ellipses", ellipses)):
        yield from _above(f"{symbol} to words", number / num_words, 0.1, "symbols")
    if language in UNSPACED:
        num_characters = sum(map(len, text.split()))
        in_words = sum(len(word) for word in words if not word.isdecimal()) / num_characters
        yield from _below("share of characters in words", in_words, 0.6, "symbols")
    else:
        mean_length = sum(map(len, words)) / num_words
        yield from _below("mean word length", mean_length, 3, "words")
        yield from _above("mean word length", mean_length, 10, "words")
        alphabetic = sum(any(map(str.isalpha, word)) for word in words) / num_words
        yield from _below("share of words with a letter", alphabetic, 0.8, "symbols")
    stop_words = _STOP_WORDS.get(language)
    if stop_words is not None:
        found = len(stop_words.intersection(map(str.lower, words)))
        yield from _below("different stop words", found, 2, "stop words")


def _above(rule: str, value: float, threshold: float, about: str) -> Iterator[Failure]:
    if value > threshold:
        yield Failure(f"quality: {about}", f"gopher: {rule} {value:.3g}, more than {threshold:g}")


def _below(rule: str, value: float, threshold: float, about: str) -> Iterator[Failure]:
    if value < threshold:
        yield Failure(f"quality: {about}", f"gopher: {rule} {value:.3g}, fewer than {threshold:g}")
