"""Where in a document an answer's evidence lies: the passages nearest to it by BM25.

Passages are pieces of equal length, side by side. Terms are words; of Chinese, pairs of neighbouring
characters. Only the answer's own terms are indexed: a document of 32k tokens takes milliseconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import bm25s
import numpy as np
from numpy.typing import NDArray

from longalign_core.records import Conversation
from longalign_core.word_hashes import Hashes, Words, words_of

# It sets its own level to DEBUG and says a line for every index, which is one an answer.
logging.getLogger("bm25s").setLevel(logging.WARNING)
PASSAGE_WORDS = 200
_MAX_POSITIONS = 8
_NEAR_BEST = 0.5
_PAIR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a text.

    Attributes:
        start: Index of its first character.
        end: Index after its last.
        score: BM25; comparable between passages of one search only.
    """

    start: int
    end: int
    score: float


def best_passages(text: str, query: str, *, limit: int, passage_words: int) -> tuple[Passage, ...]:
    """The passages of a text that a query's terms are most telling of, best first.

    Args:
        text: Where to look.
        query: An answer, or a question with its answer.
        limit: Most passages wanted.
        passage_words: Length of a passage, in words; two Chinese characters are one.

    Returns:
        Passages with at least one of the query's terms; empty when there are none.
    """
    words, terms = words_of(text), np.unique(_terms(words_of(query)))
    if not len(words.hashes) or not len(terms):
        return ()
    lengths = np.cumsum(words.lengths)
    numbers = (lengths - words.lengths) // (2 * passage_words)
    num_passages = int(numbers[-1]) + 1
    scores = _scores(_terms(words), numbers, num_passages, terms)
    last_words = np.searchsorted(numbers, np.arange(num_passages), side="right") - 1
    ends = words.ends[last_words]
    ends[-1] = len(text)
    starts = np.concatenate([[0], ends[:-1]])
    ranked = np.argsort(-scores, kind="stable")[:limit]
    return tuple(Passage(int(starts[n]), int(ends[n]), float(scores[n])) for n in ranked if scores[n] > 0)


def evidence_positions(text: str, answer: str, *, passage_words: int = PASSAGE_WORDS) -> tuple[float, ...]:
    """Where the passages lie that are nearest to an answer: at most eight, each at least half as near as the best.

    Returns:
        Their middles as fractions of the text's length, from 0 to 1, rising; empty when the text has
        nothing of the answer.
    """
    found = best_passages(text, answer, limit=_MAX_POSITIONS, passage_words=passage_words)
    near = [one for one in found if one.score >= _NEAR_BEST * found[0].score]
    return tuple(sorted(round((one.start + one.end) / 2 / len(text), 4) for one in near))


def with_evidence(conversation: Conversation, texts: Sequence[str]) -> Conversation:
    """A conversation with the positions that its answers rest on; several texts count as one after the other."""
    text = texts[0] if len(texts) == 1 else "\n\n".join(texts)
    answers = [message.content for message in conversation.messages if message.role == "assistant"]
    positions = {place for answer in answers for place in evidence_positions(text, answer)}
    return replace(conversation, evidence=tuple(sorted(positions)))


def _terms(words: Words) -> Hashes:
    """A term for each word; a character written without spaces makes one with that right before it."""
    hashes = words.hashes
    is_alone = words.lengths == 1
    terms = hashes.copy()
    follows = is_alone[1:] & is_alone[:-1] & (np.diff(words.ends) == 1)
    terms[1:][follows] = hashes[:-1][follows] * _PAIR + hashes[1:][follows]
    return terms


def _scores(terms: Hashes, numbers: NDArray[np.int64], num_passages: int, wanted: Hashes) -> NDArray[np.float32]:
    """BM25 of each passage. Shape (P,). Passages are equally long, so that length says nothing (b = 0)."""
    ids = np.minimum(np.searchsorted(wanted, terms), len(wanted) - 1)
    is_wanted = wanted[ids] == terms
    ids, numbers = ids[is_wanted], numbers[is_wanted]
    if not len(ids):
        return np.zeros(num_passages, np.float32)
    edges = np.searchsorted(numbers, np.arange(1, num_passages))
    index = bm25s.BM25(b=0.0)
    vocabulary = {str(number): number for number in range(len(wanted))}
    index.index(([part.tolist() for part in np.split(ids, edges)], vocabulary), show_progress=False)
    return np.asarray(index.get_scores_from_ids(list(range(len(wanted)))), np.float32)
