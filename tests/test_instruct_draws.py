"""Drawing one of the listed questions, and finding near-duplicates."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections import Counter

import pytest

from longalign_core.chat_client import ResponseStore
from longalign_core.instruct.draws import Draws
from longalign_core.instruct.near_questions import NearQuestions

WORDS = [f"{first}{second}{third}" for first in "bdfgklm" for second in "aeiou" for third in ("n", "rt", "st", "x")]


def drawn_of(draws: Draws, lists: dict[str, list[str]]) -> dict[str, str]:
    async def run() -> dict[str, str]:
        return {name: await draws.draw(listed, of=f"reply to {name}", subject=name) for name, listed in lists.items()}

    return asyncio.run(run())


def five(draw: random.Random) -> list[str]:
    return [" ".join(draw.sample(WORDS, 8)) + "?" for _ in range(5)]


def test_draws_different_questions_are_fixed_by_seed_and_reach_every_place(tmp_path):
    draw = random.Random(0)
    lists = {f"d/{number}": five(draw) for number in range(200)}
    with ResponseStore(tmp_path / "one") as one, ResponseStore(tmp_path / "two") as two:
        first, again, other = Draws(one, 0), Draws(two, 0), Draws(one, 1)
        drawn = drawn_of(first, lists)
        assert drawn == drawn_of(again, dict(reversed(lists.items())))
        assert drawn != drawn_of(other, lists)
    places = Counter(lists[name].index(question) for name, question in drawn.items())
    assert all(20 < places[place] < 60 for place in range(5))
    assert (first.num_drawn, first.num_repeated) == (200, 0)


@pytest.mark.parametrize(
    ("common", "like"),
    [
        ("What is the main topic of the text?", "What is the main topic of this article?"),
        ("本文的主要内容是什么？", "这篇文章的主要内容是什么？"),
    ],
)
def test_draws_question_that_every_document_gets_is_taken_once(tmp_path, common, like):
    draw = random.Random(1)
    lists = {f"d/{number}": [common, like, *five(draw)[:3]] for number in range(200)}
    with ResponseStore(tmp_path / "notes") as notes:
        draws = Draws(notes, 0)
        counts = Counter(drawn_of(draws, lists).values())
    assert counts[common] + counts[like] == 1
    assert draws.num_repeated == 0


def test_draws_only_near_duplicates_left_takes_the_least_similar_and_counts_it(tmp_path):
    old = "Which three reasons does the author give against the new law in chapter two?"
    nearer = "Which three reasons does the author give against the new law in chapter three?"
    farther = "Which three reasons did an author give against the new law in chapter two?"
    with ResponseStore(tmp_path / "notes") as notes:
        draws = Draws(notes, 0)
        drawn = drawn_of(draws, {"a": [old], "b": [nearer, old], "c": [old]})
    assert drawn == {"a": old, "b": nearer, "c": old}
    assert draws.num_repeated == 2
    assert NearQuestions().likeness(farther) == 0


def test_draws_again_in_another_order_are_the_noted_ones(tmp_path):
    lists = {f"d/{number}": ["What is it about?", f"Who is person {number} of the story?"] for number in range(50)}
    with ResponseStore(tmp_path / "notes") as notes:
        first = Draws(notes, 0)
        drawn = drawn_of(first, lists)
    shuffled = list(lists.items())
    random.Random(2).shuffle(shuffled)
    with ResponseStore(tmp_path / "notes") as notes:
        again = Draws(notes, 0)
        assert drawn_of(again, dict(shuffled)) == drawn
    assert (again.num_drawn, again.num_repeated) == (first.num_drawn, first.num_repeated)


def test_near_questions_find_what_comparing_with_all_finds():
    draw = random.Random(3)
    pool = [" ".join(draw.choices(WORDS[:30], k=draw.randint(4, 9))) for _ in range(400)]
    near, sets = NearQuestions(), []
    for question in pool:
        words = set(question.split())
        best = max((len(words & one) / len(words | one) for one in sets), default=0.0)
        assert near.likeness(question) == pytest.approx(best if best >= 0.8 else 0.0)
        near.add(question)
        sets.append(words)


def test_near_questions_ten_thousand_stay_small():
    draw = random.Random(4)
    vocabulary = [f"{draw.choice(WORDS)}{draw.choice(WORDS)}" for _ in range(5000)]
    near = NearQuestions()
    tracemalloc.start()
    for _ in range(10_000):
        question = " ".join(["what", "is", "the", *draw.choices(vocabulary, k=9)])
        near.likeness(question)
        near.add(question)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(near) == 10_000
    assert size < 50_000_000
