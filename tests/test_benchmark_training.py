import json
import os

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks import training, training_gpu, training_parity
from benchmarks.training_inputs import (
    CAPACITY,
    PACKS_PER_STEP,
    Shape,
    mix_lengths,
    model_config,
    plan_strategy,
    write_tokens,
)
from longalign_core.batch_plan import BatchPlan
from longalign_core.batching.cost import CostModel
from longalign_core.token_store import TokenStore

TINY_SHAPE = Shape(hidden=32, layers=1, vocabulary=64)
TINY = training.Sizes(
    shape=TINY_SHAPE,
    sequences=24,
    turns=1,
    trl_sequences=4,
    trl_epochs=1,
    trl_turns=1,
    held_out=4,
    parity_ranks=(1,),
    loss_sizes=(1024, 8192, 16),
)
COSTS = CostModel.from_model_config(model_config(TINY_SHAPE))


@pytest.fixture
def mix(test_data, monkeypatch):
    monkeypatch.setenv("LONGALIGN_TEST_DATA", str(test_data))
    return mix_lengths


@pytest.mark.slow
def test_training_benchmark_without_network_gives_every_figure_and_says_why_trl_lacks(mix, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    cores = os.sched_getaffinity(0)
    console = Console(record=True, quiet=True, width=110)
    try:
        figures = json.loads(json.dumps(training.run(TINY, console, tmp_path / "peers")))
    finally:
        os.sched_setaffinity(0, cores)
    assert figures["vs_naive"] > 0 and figures["vs_naive_8_ranks"] > 0 and figures["vs_reference_packing"] > 0
    assert set(figures["strategies"]) == {"naive", "sorted", "longalign", "balanced"}
    assert 0 <= figures["idle_measured"] < 1 and 0 <= figures["idle_predicted"] < 1
    assert figures["vs_trl"] is None and "pip cannot install trl" in figures["trl_skipped"]
    assert figures["parity_max_rel_error"] < 1e-5 and len(figures["parity"]) == 8
    assert 0 < figures["peak_memory_vs_plain_loss"] < 1
    assert figures["device"] and figures["date"]


def test_lengths_of_any_number_have_the_shape_of_the_sample(mix):
    few, many = mix(190), mix(5_000)
    assert few.min() >= 4 and few.max() <= many.max() <= CAPACITY
    assert few.mean() == pytest.approx(many.mean(), rel=0.02)
    assert np.mean(few >= CAPACITY // 8) == pytest.approx(np.mean(many >= CAPACITY // 8), abs=0.01)


def test_reference_packing_is_padded_to_full_capacity_with_what_no_loss_counts(mix, tmp_path):
    tokens = tmp_path / "tokens"
    write_tokens(tokens, mix(96), vocabulary=512, target_share=0.25, seed=0)
    planned = plan_strategy(tmp_path / "plan", tokens, "longalign", COSTS, ranks=2, padded=True)
    bare = plan_strategy(tmp_path / "bare", tokens, "longalign", COSTS, ranks=2)
    plan, without = BatchPlan.open(planned.plan), BatchPlan.open(bare.plan)
    store = TokenStore.open(tokens)
    assert planned.real_tokens == int(store.lengths.sum())
    for step in range(plan.meta.num_steps):
        for slot, bare_slot in zip(plan.slots(step), without.slots(step), strict=True):
            assert slot[: len(bare_slot)] == bare_slot and len(slot) <= len(bare_slot) + 1
            assert sum(placement.length for placement in slot) == (CAPACITY if bare_slot else 0)
            assert all(placement.targets == 0 for placement in slot[len(bare_slot) :])
        for scales, bare_scales in zip(plan.loss_scales(step), without.loss_scales(step), strict=True):
            assert scales[: len(bare_scales)] == bare_scales and not any(scales[len(bare_scales) :])


def test_sorted_puts_neighbours_before_the_ranks(mix, tmp_path):
    write_tokens(tmp_path / "tokens", mix(192), vocabulary=512, target_share=0.25, seed=0)
    plans = [plan_strategy(tmp_path / name, tmp_path / "tokens", name, COSTS, ranks=2) for name in ("sorted", "naive")]
    assert [planned.steps for planned in plans] == [192 // PACKS_PER_STEP["sorted"]] * 2
    in_order, in_any = (planned.slowest["2"] / (planned.cost / 2) - 1 for planned in plans)
    assert in_order < in_any / 5
    assert np.load(plans[0].slot_costs).sum() == pytest.approx(plans[0].cost)


def test_tokens_can_be_learnt_and_the_answer_comes_last(tmp_path):
    write_tokens(tmp_path / "tokens", np.array([400, 4]), vocabulary=64, target_share=0.25, seed=3)
    ids, is_target = TokenStore.open(tmp_path / "tokens").sequence(0)
    pairs = {}
    for before, after in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
        pairs.setdefault(before, []).append(after)
    most_common = sum(max(map(after.count, set(after))) for after in pairs.values())
    assert most_common / (len(ids) - 1) > 0.7
    assert np.flatnonzero(is_target).tolist() == list(range(300, 400))


def test_parity_weights_of_the_expectation_by_hand():
    counts = [[[2], [4, 1], []], [[5], [], []]]
    paper, _, tokens, epoch, pack = training_parity.FORMS
    assert training_parity.weights_of(counts, paper, 0) == [[1 / 6], [1 / 12, 1 / 3], []]
    assert training_parity.weights_of(counts, tokens, 0) == [[1 / 7], [1 / 7, 1 / 7], []]
    assert training_parity.weights_of(counts, epoch, 1) == [[0.1], [], []]
    assert training_parity.weights_of(counts, pack, 0) == [[1 / 4], [1 / 10, 1 / 10], []]


TINY_GPU = training_gpu.GpuSizes(
    model="tiny",
    hidden=256,
    intermediate=384,
    layers=2,
    heads=4,
    key_heads=2,
    vocabulary=64,
    pack_tokens=100,
    turns=1,
    first_tokens=16,
    most_tokens=64,
)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_gpu_measurement_runs_small(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    found = training_gpu.measure(TINY_GPU, device)
    assert sum(found["pack"]) == 100
    for row in found["losses"].values():
        assert row["longest_context"] == 64 and row["longest_is_cap"]
        assert row["tokens_per_second"] > 0 and (row["peak_memory_gb"] is None) == (device == "cpu")


def test_longest_context_is_found_between_powers_of_two():
    sizes = training_gpu.LLAMA_1B
    longest, is_cap = training_gpu._longest(lambda tokens: tokens <= 100_000, sizes)
    assert 100_000 * 7 / 8 <= longest <= 100_000 and not is_cap
