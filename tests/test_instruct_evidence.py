"""Where an answer's evidence lies in a document, and what two texts have in common."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.instruct.evidence import best_passages, evidence_positions, with_evidence
from longalign_core.instruct.overlap import overlap, repeated_words
from longalign_core.records import Conversation, Message
from longalign_core.word_hashes import words_of

WORDS = "river stone letter harbour engine winter garden signal copper window market bridge".split()  # noqa: SIM905


def filler(number: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(number))


@pytest.mark.parametrize("place", [0, 1, 7, 13, 19])
def test_evidence_lies_in_the_passage_that_the_answer_speaks_of(place):
    parts = [filler(50, seed) for seed in range(20)]
    parts[place] += " the astronomer Kepler measured orbits near Prague"
    text = "\n".join(part + " end" * (57 - len(part.split())) for part in parts)
    (found,) = best_passages(text, "Kepler measured his orbits in Prague.", limit=1, passage_words=57)
    assert "Kepler" in text[found.start : found.end]
    (position,) = evidence_positions(text, "Kepler, in Prague.", passage_words=57)
    assert position == pytest.approx((place + 0.5) / 20, abs=0.02)


def test_evidence_in_chinese_is_found_by_pairs_of_characters():
    draw = random.Random(1)
    common = [chr(draw.randrange(0x4E00, 0x4E80)) for _ in range(40)] + list("天文学家布拉格")
    parts = ["".join(draw.choice(common) for _ in range(100)) for _ in range(10)]
    parts[6] = parts[6][:90] + "在布拉格的天文学家观测"[:10]
    (position,) = evidence_positions("".join(parts), "天文学家在布拉格。", passage_words=50)
    assert position == pytest.approx(0.65)


def test_evidence_in_two_places_gives_both_in_order():
    parts = [
        "alpha beta gamma zeppelin airship hydrogen",
        *([filler(6)] * 8),
        "zeppelin airship hydrogen over town now",
    ]
    assert evidence_positions(" ".join(parts), "zeppelin airship hydrogen", passage_words=6) == pytest.approx(
        (0.05, 0.95), abs=0.02
    )


def test_evidence_of_an_answer_that_shares_nothing_is_empty():
    assert evidence_positions(filler(500), "Ὀδύσσεια") == ()
    assert evidence_positions("", "river") == ()
    assert evidence_positions("river stone", "!!!") == ()


def test_evidence_of_several_documents_counts_them_as_one():
    texts = (filler(50, 1) + " zeppelin", filler(50, 2) + " airship")
    turns = ("Q", "zeppelin", "Q2", "airship")
    messages = tuple(
        Message(role="user" if place % 2 == 0 else "assistant", content=words) for place, words in enumerate(turns)
    )
    conversation = Conversation(id="a", messages=messages, source="s", task_type="general", language="en")
    assert with_evidence(conversation, texts).evidence == (0.5,)
    assert with_evidence(conversation, (texts[0] + filler(200), texts[1])).evidence != (0.5,)


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=120), st.lists(st.sampled_from(WORDS), min_size=1, max_size=9)
)
def test_best_passages_rank_as_bm25_written_out(words, query):
    size, text = 10, " ".join(words)
    pieces = [Counter(words[start : start + size]) for start in range(0, len(words), size)]
    scores = []
    for piece in pieces:
        score = 0.0
        for term in set(query):
            num_with = sum(term in other for other in pieces)
            # Robertson's term frequency without length, Lucene's idf; k1 1.5 as bm25s has it.
            idf = math.log(1 + (len(pieces) - num_with + 0.5) / (num_with + 0.5))
            score += idf * piece[term] / (piece[term] + 1.5)
        scores.append(score)
    found = best_passages(text, " ".join(query), limit=len(pieces), passage_words=size)
    assert [one.score for one in found] == pytest.approx(sorted((s for s in scores if s > 0), reverse=True), rel=1e-4)
    for one in found:
        piece = Counter(text[one.start : one.end].split())
        assert scores[pieces.index(piece)] == pytest.approx(one.score, rel=1e-4)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.sampled_from("abc"), max_size=60), st.lists(st.sampled_from("abc"), max_size=60))
def test_overlap_and_repetition_equal_a_slow_count(answer, text):
    runs = [tuple(answer[start : start + 8]) for start in range(len(answer) - 7)]
    of_text = {tuple(text[start : start + 8]) for start in range(len(text) - 7)}
    in_text = {start + step for start, run in enumerate(runs) if run in of_text for step in range(8)}
    again = {start + step for start, run in enumerate(runs) if run in runs[:start] for step in range(8)}
    found = overlap(words_of(" ".join(answer)), [words_of(" ".join(text))])
    assert found.words == len(in_text)
    assert repeated_words(words_of(" ".join(answer))) == len(again)
    passages = [
        end - start
        for start in range(len(answer))
        for end in range(start + 8, len(answer) + 1)
        if " ".join(answer[start:end]) in " ".join(text)
    ]
    longest = max(passages, default=0)
    # Where an answer has the same run twice, its first place is taken: the passage may come out shorter, never longer.
    assert found.longest == longest if len(set(runs)) == len(runs) else found.longest <= longest


@settings(deadline=None)  # the first call compiles
@given(st.text(max_size=300))
def test_ends_of_words_cut_a_text_into_its_words(text):
    words = words_of(text)
    ends = words.ends.tolist()
    assert ends == sorted(set(ends))
    for start, end, known in zip([0, *ends], ends, words.hashes.tolist(), strict=False):
        assert words_of(text[start:end]).hashes.tolist() == [known]


def test_evidence_searches_leave_no_debug_lines_behind():
    assert not logging.getLogger("bm25s").isEnabledFor(logging.INFO)
