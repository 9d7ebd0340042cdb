from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.batching.cost import CostModel
from longalign_core.batching.strategies import STRATEGIES, Batching, order_epochs
from longalign_core.errors import DataError, InputError

REPOSITORY = Path(__file__).resolve().parent.parent
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


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(1, CAPACITY), min_size=40, max_size=120, unique=False),
    seed=st.integers(0, 2**31),
    epochs=st.integers(2, 5),
)
def test_order_every_epoch_is_another_and_known_by_seed_and_number_alone(strategy, lengths, seed, epochs):
    tokens = np.array(lengths)
    orders = list(order_epochs(tokens, batching(strategy, seed=seed), epochs))
    assert len({tuple(order.sequences.tolist()) for order in orders}) == epochs
    fewer = list(order_epochs(tokens, batching(strategy, seed=seed), epochs - 1))
    for order, again in zip(orders, fewer, strict=False):
        assert order.sequences.tolist() == again.sequences.tolist()
        assert order.slots.tolist() == again.slots.tolist()


ORDER_IN_ANOTHER_PROCESS = """
import hashlib, sys
import numpy as np
from tests.test_strategies import batching, mixed_lengths
from longalign_core.batching.strategies import STRATEGIES, order_epochs
for strategy in STRATEGIES:
    digest = hashlib.sha256()
    for order in order_epochs(mixed_lengths(5000), batching(strategy), epochs=2):
        digest.update(order.sequences.tobytes() + order.slots.tobytes())
    print(strategy, digest.hexdigest())
"""


def test_order_other_process_with_other_threads_gives_the_same():
    found = set()
    for threads in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": threads,
            "OMP_NUM_THREADS": threads,
            "NUMBA_NUM_THREADS": threads,
        }
        done = subprocess.run(
            [sys.executable, "-c", ORDER_IN_ANOTHER_PROCESS],
            capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY,
        )  # fmt: skip
        found.add(done.stdout)
    assert len(found) == 1 and len(found.pop().splitlines()) == len(STRATEGIES)


@pytest.mark.parametrize("packs_per_step", [8, 32])
def test_order_balanced_papers_mix_reaches_its_targets(test_data, packs_per_step):
    lengths = np.load(test_data / "packing" / "lengths_100k.npy")
    capacity = 65_536
    choice = Batching(
        strategy="balanced",
        capacity=capacity,
        packs_per_step=packs_per_step,
        alike=packs_per_step,
        cost_model=CostModel(),
        seed=0,
    )
    (order,) = order_epochs(lengths, choice, epochs=1)
    placed = lengths[order.sequences].astype(np.int64)
    num_packs = order.slots[-1] + 1
    assert placed.sum() >= 0.999 * capacity * num_packs
    num_steps = -(-num_packs // packs_per_step)
    costs = np.bincount(order.slots, CostModel().costs(placed), num_steps * packs_per_step)
    for ranks in (rank for rank in (2, 4, 8, 16, 32) if packs_per_step % rank == 0):
        slowest = costs.reshape(-1, ranks).max(axis=1).sum()
        assert 1 - costs.sum() / (ranks * slowest) <= 0.01
    steps = order.slots // packs_per_step
    counts = np.bincount(steps)
    weights = 1 / counts[steps]
    assert weights.sum() ** 2 / (len(weights) * (weights**2).sum()) >= 0.98
    # A long sequence may be most of a pack; beyond that, packs of a step have no reason to differ.
    is_long = placed >= capacity // 8
    share = np.bincount(steps, placed * is_long)[:-1] / np.bincount(steps, placed)[:-1]
    assert share.std() < 0.11 and share.min() > 0.4


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
