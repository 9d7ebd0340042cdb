"""Task types: shares that are exact, and draws that do not move."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longalign_core.instruct.assignment import assign_task_types, split

TYPES = ("general", "summary", "reasoning", "extraction")


def ids(number: int) -> list[str]:
    return [f"corpus/{n}" for n in range(number)]


def even(number: int, num_types: int = 4) -> dict[str, int]:
    return split(number, dict.fromkeys(TYPES[:num_types], 1.0))


@given(
    st.integers(0, 500),
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 10), min_size=1),
)
def test_split_any_weights_sum_to_the_total_and_stay_within_one(total, weights):
    shares = split(total, weights)
    whole = sum(weights.values())
    assert sum(shares.values()) == total
    assert all(abs(shares[name] - total * weight / whole) < 1 + 1e-6 for name, weight in weights.items())


def test_split_many_times_what_is_rounded_away_comes_back():
    owed: dict[str, float] = {}
    sums: Counter[str] = Counter()
    for total in [1, 2, 3, 5, 7] * 20:
        sums.update(split(total, dict.fromkeys(TYPES, 1.0), owed))
    assert max(sums.values()) - min(sums.values()) <= 1
    assert sum(sums.values()) == 360


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 7, 100, 1001])
@pytest.mark.parametrize("num_types", [1, 3, 4])
def test_assign_task_types_any_number_of_documents_fills_every_place(number, num_types):
    room = even(number, num_types)
    assigned = assign_task_types(ids(number), room, seed=3)
    counts = Counter(assigned.values())
    assert set(assigned) == set(ids(number))
    assert {name: counts[name] for name in room} == room


def test_assign_task_types_order_of_documents_does_not_matter():
    shuffled = ids(101)
    random.Random(0).shuffle(shuffled)
    assert assign_task_types(shuffled, even(101), seed=0) == assign_task_types(ids(101), even(101), seed=0)


def test_assign_task_types_another_seed_draws_anew():
    first, second = (assign_task_types(ids(1000), even(1000), seed=seed) for seed in (0, 1))
    same = sum(first[name] == second[name] for name in first)
    assert 150 < same < 350


def test_assign_task_types_few_new_documents_change_few_others():
    before, after = (assign_task_types(ids(number), even(number), seed=0) for number in (1000, 1010))
    changed = sum(before[name] != after[name] for name in before)
    assert changed <= 30


def test_assign_task_types_neighbours_are_not_alike():
    """A type is no function of the position: corpora come one after the other."""
    assigned = assign_task_types(ids(1000), even(1000), seed=0)
    counts = Counter(assigned[one] for one in ids(200))
    assert all(25 < counts[name] < 75 for name in TYPES)
