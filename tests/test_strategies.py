from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.batching.cost import CostModel
from longalign_core.batching.strategies import STRATEGIES, Batching, order_epochs
from longalign_core.errors import DataError, InputError

CAPACITY = 64
COST = CostModel(linear=1.0, quadratic=1.0)


def batching(strategy: str, packs_per_step: int = 4, alike: int | None = None, seed: int = 0) -> Batching:
    return Batching(
        strategy=strategy,
        capacity=CAPACITY,
        packs_per_step=packs_per_step,
        alike=alike or packs_per_step,
        cost_model=COST,
        seed=seed,
    )


def mixed_lengths(count: int) -> np.ndarray:
    """Nine short ones to a long one."""
    generator = np.random.default_rng(1)
    is_long = generator.random(count) < 0.1
    return np.where(is_long, generator.integers(20, CAPACITY, count), generator.integers(1, 6, count))


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, CAPACITY), min_size=1, max_size=120),
    step=st.sampled_from([(1, 1), (4, 1), (4, 2), (4, 4), (6, 3)]),
    seed=st.integers(0, 3),
)
def test_order_any_lengths_places_each_sequence_once_within_capacity(strategy, lengths, step, seed):
    packs_per_step, alike = step
    tokens = np.array(lengths)
    for order in order_epochs(tokens, batching(strategy, packs_per_step, alike, seed), epochs=2):
        assert sorted(order.sequences.tolist()) == list(range(len(lengths)))
        assert (np.diff(order.slots) >= 0).all()
        assert np.bincount(order.slots, tokens[order.sequences]).max() <= CAPACITY
        # Empty slots stand only behind the last pack, in the last step.
        assert set(order.slots.tolist()) == set(range(order.slots[-1] + 1))
        if strategy in ("naive", "sorted"):
            assert len(set(order.slots.tolist())) == len(lengths)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_order_same_seed_repeats_and_epochs_differ(strategy):
    lengths = mixed_lengths(500)
    first, second = order_epochs(lengths, batching(strategy), epochs=2)
    again, _ = order_epochs(lengths, batching(strategy), epochs=2)
    (other_seed,) = order_epochs(lengths, batching(strategy, seed=1), epochs=1)
    assert first.sequences.tolist() == again.sequences.tolist() and first.slots.tolist() == again.slots.tolist()
    assert first.sequences.tolist() != second.sequences.tolist()
    assert first.sequences.tolist() != other_seed.sequences.tolist()


@pytest.mark.parametrize("strategy", ["sorted", "balanced"])
def test_order_alike_groups_hold_neighbours_in_cost(strategy):
    lengths = mixed_lengths(700)
    (order,) = order_epochs(lengths, batching(strategy, packs_per_step=8, alike=4), epochs=1)
    costs = np.bincount(order.slots, COST.costs(lengths[order.sequences]))
    whole = costs[: len(costs) // 4 * 4].reshape(-1, 4)
    ranges = sorted((group.min(), group.max()) for group in whole)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    assert [group[0] for group in ranges] != whole.min(axis=1).tolist(), "groups come in shuffled order"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_order_sequence_without_tokens_is_refused(strategy):
    with pytest.raises(DataError, match="sequence 2 has 0 tokens"):
        list(order_epochs(np.array([3, 4, 0]), batching(strategy), epochs=1))


def test_order_sequence_over_capacity_is_refused():
    with pytest.raises(InputError, match="sequence 1 has 65 tokens but a pack holds 64"):
        list(order_epochs(np.array([3, 65, 7]), batching("balanced"), epochs=1))


def test_order_no_sequence_is_refused():
    with pytest.raises(DataError, match="no sequence"):
        list(order_epochs(np.array([], dtype=np.int64), batching("naive"), epochs=1))
