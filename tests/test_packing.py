from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.batching.dividing import divide
from longalign_core.batching.evening import even_out_packs
from longalign_core.batching.grouping import group_by
from longalign_core.batching.packing import pack_best_fit_decreasing, pack_first_fit, pack_next_fit

CAPACITY = 20
many_lengths = st.lists(st.integers(1, CAPACITY), min_size=1, max_size=300).map(lambda drawn: np.array(drawn, np.int32))


def first_fit_slowly(lengths: list[int]) -> list[int]:
    rooms: list[int] = []
    packs = []
    for length in lengths:
        pack = next((number for number, room in enumerate(rooms) if room >= length), len(rooms))
        if pack == len(rooms):
            rooms.append(CAPACITY)
        rooms[pack] -= length
        packs.append(pack)
    return packs


def best_fit_rooms_slowly(lengths: list[int]) -> list[int]:
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else CAPACITY) - length)
    return sorted(rooms)


@settings(deadline=None)
@given(lengths=many_lengths)
def test_first_fit_any_lengths_equals_search_from_the_first_pack(lengths):
    assert pack_first_fit(lengths, CAPACITY).tolist() == first_fit_slowly(lengths.tolist())


@settings(deadline=None)
@given(lengths=many_lengths)
def test_best_fit_any_lengths_leaves_the_rooms_of_a_slow_search(lengths):
    packs = pack_best_fit_decreasing(lengths, CAPACITY)
    rooms = CAPACITY - np.bincount(packs, lengths)
    assert sorted(rooms.tolist()) == best_fit_rooms_slowly(lengths.tolist())


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([7, 9, 5, 20, 1, 19, 2], [0, 0, 1, 2, 3, 3, 4]), ([3], [0]), ([20, 20], [0, 1])],
)
def test_next_fit_small_case_never_looks_back_and_keeps_the_last_pack(lengths, expected):
    assert pack_next_fit(np.array(lengths, dtype=np.int32), CAPACITY).tolist() == expected


@settings(deadline=None)
@given(lengths=many_lengths, seed=st.integers(0, 5))
def test_evening_any_packs_keeps_them_within_capacity_and_spreads_counts_no_wider(lengths, seed):
    packs = pack_first_fit(lengths, CAPACITY)
    evened = even_out_packs(lengths, packs, CAPACITY, np.random.default_rng(seed))
    assert np.bincount(evened, lengths).max() <= CAPACITY
    before, after = np.bincount(packs), np.bincount(evened)
    assert len(after) == len(before) and after.min() >= before.min() and after.max() <= before.max()


def test_evening_many_blocks_of_packs_keeps_every_pack_and_its_capacity():
    generator = np.random.default_rng(0)
    lengths = np.where(
        generator.random(90_000) < 0.1, generator.integers(10, 18, 90_000), generator.integers(1, 5, 90_000)
    )
    lengths = lengths.astype(np.int32)
    packs = pack_first_fit(lengths, CAPACITY)
    assert packs.max() > 2 * 4096
    evened = even_out_packs(lengths, packs, CAPACITY, np.random.default_rng(0))
    assert np.bincount(evened, lengths).max() <= CAPACITY
    assert set(evened.tolist()) == set(packs.tolist())
    assert np.bincount(evened).std() < 0.5 * np.bincount(packs).std()


def test_evening_long_sequences_beside_crumbs_are_dealt_to_all_packs():
    # Two packs of two long ones, two of crumbs: each should get one long one and half a pack of crumbs.
    lengths = np.array([10] * 4 + [1] * 40, dtype=np.int32)
    packs = np.repeat([0, 1, 2, 3], [2, 2, 20, 20]).astype(np.int32)
    evened = even_out_packs(lengths, packs, CAPACITY, np.random.default_rng(0))
    assert np.bincount(evened[:4]).tolist() == [1, 1, 1, 1]
    assert np.bincount(evened).tolist() == [11, 11, 11, 11]


@settings(deadline=None, max_examples=300)
@given(
    first=st.lists(st.integers(1, CAPACITY), min_size=1, max_size=6),
    second=st.lists(st.integers(1, CAPACITY), min_size=1, max_size=12),
    seed=st.integers(1, 2**62),
)
def test_divide_any_two_packs_shares_their_sequences_within_capacity_or_finds_nothing(first, second, seed):
    few, many = sorted([first, second], key=len)
    if max(sum(few), sum(many)) > CAPACITY:
        few, many = few[:1], [1] * len(many)
    pool = np.array(sorted(few + many, reverse=True), dtype=np.int32)
    numbers = np.arange(len(pool), dtype=np.int32)
    sizes, members = np.empty_like(pool), np.empty_like(numbers)
    count, state = divide(pool, numbers, len(few), CAPACITY, sizes, members, np.uint64(seed))
    assert state != 0
    if count:
        assert len(few) <= count <= max(len(few), len(pool) // 2)
        assert sizes[:count].sum() <= CAPACITY and sizes[count:].sum() <= CAPACITY
        assert sorted(members.tolist()) == numbers.tolist() and (pool[members] == sizes).all()
        assert (np.diff(sizes[:count]) <= 0).all() and (np.diff(sizes[count:]) <= 0).all()


@given(owners=st.lists(st.integers(0, 9), max_size=60))
def test_group_by_any_owners_is_a_stable_sort(owners):
    order, counts = group_by(np.array(owners, dtype=np.int32), 11)
    assert order.tolist() == sorted(range(len(owners)), key=lambda thing: owners[thing])
    assert counts.tolist() == [owners.count(owner) for owner in range(11)]


def test_evening_pack_of_crumbs_beside_pack_of_one_shares_them():
    lengths = np.array([10, *[1] * 11], dtype=np.int32)
    packs = np.array([0, *[1] * 11], dtype=np.int32)
    evened = even_out_packs(lengths, packs, CAPACITY, np.random.default_rng(0))
    assert sorted(np.bincount(evened)) == [6, 6]


def test_evening_no_room_for_more_leaves_the_pack_as_it_is():
    lengths = np.array([20, *[2] * 10], dtype=np.int32)
    packs = np.array([0, *[1] * 10], dtype=np.int32)
    evened = even_out_packs(lengths, packs, CAPACITY, np.random.default_rng(0))
    assert sorted(np.bincount(evened)) == [1, 10]
