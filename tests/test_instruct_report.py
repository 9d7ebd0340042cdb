"""The page and the figures of a run of `instruct`, over outcomes made by hand."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.instruct.question_diversity import NEAR, measure_diversity
from longalign_core.instruct.report import InstructReport, SpentRow, quantiles, thirds
from longalign_core.records import Conversation, Message, Reject

TYPES = ("extraction", "general", "reasoning", "summary")
BUCKETS = ((8_192, "8k–16k"), (16_384, "16k–32k"), (32_768, "32k–64k"))
HOSTILE = "</p><script>alert(1)</script><img src=http://elsewhere.example/x onerror=alert(2)> & {{ 7*7 }}"


class Page(HTMLParser):
    """Text of a page, its tags, and every address it would ask for."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.addresses, self.tags = "", [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        asked = [value for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.addresses += [value for value in asked if not value.startswith("#")]

    def handle_data(self, data):
        self.text += data


def conversation(number: int, text: str = "A document.", question: str | None = None) -> Conversation:
    question = question or f"What does part {number} say about the harbour of {number * 7}?"
    return Conversation(
        id=f"books/{number}",
        messages=(
            Message(role="user", content=f"{text}\n\n{question}"),
            Message(role="assistant", content=f"It says {number} things about it."),
        ),
        source="books" if number % 3 else "arxiv",
        task_type=TYPES[number % 4],
        language="en",
        document_id=f"books/{number}",
        evidence=(0.1, 0.5) if number % 2 else (),
    )


def places(number: int) -> dict[str, tuple[str, str, int | None]]:
    return {f"books/{n}": (TYPES[n % 4], BUCKETS[n % 3][1], BUCKETS[n % 3][0] + n) for n in range(number)}


def reject(number: int, reason: str = "refusal") -> Reject:
    return Reject(id=f"books/{number}", source="books", stage="instruct", reason=reason, detail=f"found {HOSTILE}")


def spent(task_type: str, corpus: str, calls: int, dollars: float | None) -> SpentRow:
    return SpentRow(
        purpose="answer", task_type=task_type, corpus=corpus, calls=calls, prompt_tokens=calls * 1000,
        cached_tokens=calls * 900, reply_tokens=calls * 10, dollars=dollars,
    )  # fmt: skip


SPENDING = (spent("general", "books", 3, 1.5), spent("general", "arxiv", 2, None), spent("summary", "books", 5, 2.25))


def report(seed: int = 0) -> InstructReport:
    accepted = [conversation(n, HOSTILE * 40) for n in range(30)]
    rejects = [reject(n) for n in range(30, 36)] + [reject(36, "wrong language"), reject(99, "wrong language")]
    return InstructReport.gather(accepted, rejects, places(40), wanted=40, spending=SPENDING, seed=seed)


def test_report_counts_outcomes_by_type_corpus_and_length():
    told = report().as_json()
    assert orjson.loads(orjson.dumps(told)) == told
    assert (told["accepted"], told["rejected"]) == (30, {"refusal": 6, "wrong language": 2})
    acceptance = told["acceptance"]
    assert acceptance["task type"]["extraction"] == {
        "accepted": 8, "rejected": {"refusal": 1, "wrong language": 1}, "share": 0.8,
    }  # fmt: skip
    assert acceptance["task type"]["not known"]["rejected"] == {"wrong language": 1}
    assert acceptance["corpus"]["arxiv"] == {"accepted": 10, "rejected": {}, "share": 1.0}
    assert list(acceptance["length in tokens"]) == ["8k–16k", "16k–32k", "32k–64k", "not known"]
    for groups in acceptance.values():
        assert sum(one["accepted"] + sum(one["rejected"].values()) for one in groups.values()) == 38
    assert told["evidence"] == {
        "passages": 30, "histogram": [0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "thirds": [15, 15, 0], "conversations_without": 15,
    }  # fmt: skip


def test_report_documents_never_asked_about_are_no_failures():
    spare = [reject(n, "not needed") for n in range(30, 50)]
    told = InstructReport.gather([conversation(1)], [reject(31), *spare], places(60), wanted=1)
    assert (told.as_json()["rejected"], told.as_json()["not_needed"]) == ({"refusal": 1}, 20)
    assert told.as_json()["acceptance"]["corpus"]["books"]["share"] == 0.5
    text = Page(told.as_html()).text
    assert "1 conversations of 2 documents" in text
    assert "20 further documents were not needed and never asked about" in text


def test_report_page_shows_everything_and_asks_nothing_of_the_network():
    content = report().as_html()
    page = Page(content)
    assert page.addresses == ["data:,"]
    assert "script" not in page.tags and "img" not in page.tags
    assert HOSTILE[:30] in page.text
    assert "{{ 7*7 }}" in page.text
    for words in ("30 conversations of 38 documents", "10 of 40 missing", "78.9 %", "characters left out", "≥ 1.50",
                  "no price", "3.75", "2 calls have no known price", "wrong language"):  # fmt: skip
        assert words in page.text, words
    assert page.tags.count("svg") == 6
    assert page.tags.count("article") == 10


def test_report_of_nothing_and_of_rejects_alone_still_makes_a_page():
    for rejects in ([], [reject(1)]):
        empty = InstructReport.gather([], rejects, places(5))
        assert orjson.loads(orjson.dumps(empty.as_json()))["accepted"] == 0
        assert f"0 conversations of {len(rejects)} documents" in Page(empty.as_html()).text


def test_report_draws_by_seed_whatever_the_order():
    one = InstructReport.gather([conversation(n) for n in range(50)], [reject(n) for n in range(50, 80)], {}, seed=1)
    accepted = [conversation(n) for n in reversed(range(50))]
    other = InstructReport.gather(accepted, [reject(n) for n in reversed(range(50, 80))], {}, seed=1)
    assert [shown.id for shown in one.shown] == [shown.id for shown in other.shown]
    assert one.rejects == other.rejects and len(one.rejects) == 3
    drawn = {tuple(report(seed).as_json()["shown"]) for seed in range(5)}
    assert len(drawn) == 5 and all(len(ids) == 10 for ids in drawn)


def test_report_holds_no_more_than_it_shows_of_a_stream_of_long_conversations():
    text = "A long document goes on and on. " * 4_000

    def stream(number: int) -> Iterator[Conversation]:
        for n in range(number):
            yield conversation(n, text + str(n))

    tracemalloc.start()
    shown = InstructReport.gather(stream(300), (), places(300))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(text) * 300 > 38_000_000
    assert peak < 8_000_000, f"{peak:,} bytes"
    assert all(len(turn.head) + len(turn.tail) < 8_000 for one in shown.shown for turn in one.turns)


def test_report_takes_the_question_behind_the_document_and_every_later_turn():
    turns = ("Text.\n\nMore text.\n\nWhat?", "This.", "And why?", "So.")
    messages = tuple(
        Message(role="user" if n % 2 == 0 else "assistant", content=words) for n, words in enumerate(turns)
    )
    one = Conversation(id="a", messages=messages, source="s", task_type="t", language="en")
    tally = InstructReport.gather([one], (), {}).tally
    assert tally.questions == {"en": ["What?", "And why?"]}
    assert tally.question_words == [1, 2]
    assert tally.answer_words == {"not known": [1, 1]}


def test_diversity_tells_equal_near_and_different_questions_apart():
    long = "What does the author say about the harbour of the old town in the third chapter of the book?"
    questions = [long, long.upper(), long.replace("third", "fourth"), "Who built the bridge?", "Why was it so cold?"]
    one = measure_diversity(questions, "en")
    assert (one.num_questions, one.num_distinct, one.num_near) == (5, 4, 2)
    assert one.openings[0] == ("what does the", 3)
    assert one.distinct_n[1] == pytest.approx(
        len(set(" ".join(questions).lower().replace("?", "").split())) / 68, abs=0.02
    )
    chinese = measure_diversity(["作者怎样看待这座城市？", "作者怎样看待这条河流？", "为什么？"], "zh")
    assert chinese.openings[0] == ("作者怎样", 2)
    assert measure_diversity([], "en").distinct_n == {1: 0.0, 2: 0.0, 3: 0.0}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_near_duplicates_are_those_of_a_comparison_of_all_with_all(seed):
    draw = random.Random(seed)
    base = [[draw.choice("abcdefgh") for _ in range(draw.randrange(2, 14))] for _ in range(6)]
    questions = [
        " ".join(draw.choice("abcdefgh") if draw.random() < 0.1 else word for word in draw.choice(base))
        for _ in range(30)
    ]
    distinct = list(dict.fromkeys(questions))
    pairs = [set(zip(q.split(), q.split()[1:], strict=False)) for q in distinct]
    near = sum(
        any(len(one & other) >= NEAR * len(one | other) for other in pairs[:number]) for number, one in enumerate(pairs)
    )
    assert measure_diversity(questions, "en").num_near == near + len(questions) - len(distinct)


def test_thirds_and_quantiles_of_known_values():
    assert thirds((0.0, 0.33, 0.34, 0.66, 0.67, 1.0)) == (2, 2, 2)
    assert quantiles(list(range(11))) == (1, 5, 9)
    assert quantiles([]) == ()
