from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_core.batching.comparison import compare_with_baselines
from longalign_core.batching.cost import CostModel
from longalign_core.batching.page import comparison_page
from longalign_core.batching.report import PlanReport
from longalign_core.batching.simulate import simulate_batches
from longalign_core.batching.strategies import Batching, order_epochs
from longalign_core.errors import DataError, InputError

STRATEGIES = ["naive", "sorted", "longalign", "bfd", "balanced"]
LLAMA_2_7B = (42e9, 786_432.0)


@pytest.fixture
def lengths_file(tmp_path):
    path = tmp_path / "lengths.npy"
    np.save(path, np.random.default_rng(0).integers(1, 100, 200).astype(np.int32))
    return path


@pytest.mark.parametrize(("packs_per_step", "ranks"), [(8, (1, 2, 4, 8)), (32, (8, 32))])
def test_simulate_the_papers_mix_balanced_is_full_even_and_without_waiting(test_data, packs_per_step, ranks):
    for number in ranks:
        (row,) = simulate_batches(
            test_data / "packing" / "lengths_100k.npy",
            capacity=65_536,
            packs_per_step=packs_per_step,
            ranks=number,
            strategy="balanced",
        )
        assert row["utilisation"] >= 0.999
        assert row["idle"] <= 0.01
        assert row["ess"] >= 0.98


def test_simulate_the_papers_mix_baselines_come_out_as_their_peers_do(test_data):
    rows = simulate_batches(test_data / "packing" / "lengths_100k.npy", capacity=65_536, packs_per_step=8, ranks=8)
    by_name = {row["strategy"]: row for row in rows}
    assert list(by_name) == STRATEGIES
    assert by_name["naive"]["slots_per_step"] == by_name["sorted"]["slots_per_step"] == 96
    assert by_name["naive"]["steps"] == pytest.approx(by_name["balanced"]["steps"], rel=0.02)
    assert by_name["naive"]["idle"] == pytest.approx(0.81, abs=0.01)
    assert by_name["sorted"]["idle"] < 0.002
    assert by_name["longalign"]["packs"] == pytest.approx(10_104, rel=0.01)
    assert by_name["bfd"]["packs"] == 8_200
    assert by_name["bfd"]["idle"] == pytest.approx(0.22, abs=0.01)
    assert by_name["bfd"]["ess"] == pytest.approx(0.57, abs=0.02)


def test_simulate_out_writes_the_plan(lengths_file, tmp_path):
    out = tmp_path / "plan.parquet"
    (row,) = simulate_batches(
        lengths_file, capacity=100, packs_per_step=4, ranks=2, alike=2, strategy="balanced", out=out
    )
    table = pq.read_table(out)
    assert table.column_names == ["epoch", "step", "slot", "offset", "sequence", "length", "targets"]
    assert table.num_rows == 200
    assert max(table["step"].to_pylist()) == row["steps"] - 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lengths.npy", "plan.parquet"]


def test_simulate_model_config_decides_the_cost(lengths_file, tmp_path):
    config = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 50}))
    options = {"capacity": 100, "packs_per_step": 4, "ranks": 4, "strategy": "naive"}
    (default,) = simulate_batches(lengths_file, **options)
    (small,) = simulate_batches(lengths_file, model=tmp_path, **options)
    assert small["idle"] > default["idle"], "attention weighs more in the small model"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": 3}, "--ranks 3 does not divide --packs-per-step 4"),
        ({"alike": 3}, "--alike 3 does not divide"),
        ({"ranks": 0}, "--ranks is 0"),
        ({"capacity": 0}, "--capacity is 0"),
        ({"packs_per_step": 0}, "--packs-per-step is 0"),
        ({"tflops": 0.0}, "--tflops is 0.0"),
        ({"tflops": float("nan")}, "--tflops is nan"),
        ({"tflops": 100.0, "gpus": 3}, "--gpus 3 is no multiple of --ranks 2"),
        ({"gpus": 4}, "give it with --tflops"),
        ({"epochs": 2}, "give it with --tflops"),
        ({"epochs": 0, "tflops": 1.0}, "--epochs is 0"),
        ({"picture": "packs.pdf"}, r"packs\.pdf is none of \.png, \.svg, \.html"),
        ({"picture": "nowhere/packs.png"}, "the folder of --picture"),
        ({"capacity": 10**10}, "--capacity is 10000000000"),
        ({"strategy": "best"}, "'best' is unknown; choose one of naive, sorted"),
        ({"out": "plan.parquet"}, "say which with --strategy"),
        ({"model": "missing.json"}, r"missing\.json cannot be read"),
    ],
)
def test_simulate_wrong_option_is_refused(lengths_file, tmp_path, options, message):
    for name in ("out", "model", "picture"):
        if name in options:
            options = options | {name: tmp_path / options[name]}
    with pytest.raises(InputError, match=message):
        simulate_batches(lengths_file, **({"capacity": 100, "packs_per_step": 4, "ranks": 2} | options))


def test_simulate_capacity_below_the_longest_names_the_sequence(lengths_file):
    longest = int(np.argmax(np.load(lengths_file) > 50))
    with pytest.raises(DataError, match=f"sequence {longest} of .* 1 to 50 .* raise --capacity"):
        simulate_batches(lengths_file, capacity=50, packs_per_step=1, ranks=1)


def oracle(rows, cost_of_token, packs_per_step, ranks):
    """The figures of a plan at alpha 1, counted slot by slot from rows of (step, slot, length)."""
    linear, quadratic = cost_of_token
    slots: dict[tuple[int, int], list[int]] = {}
    for step, slot, length in rows:
        slots.setdefault((step, slot), []).append(length)
    num_steps = 1 + max(step for step, _ in slots)
    cost = {place: sum(linear * one + quadratic * one**2 for one in held) for place, held in slots.items()}
    slowest = once = 0.0
    weights = {"step": [], "pack": []}
    counts = []
    for step in range(num_steps):
        of_rank = [0.0] * ranks
        for start in range(0, packs_per_step, ranks):
            micro_step = [cost.get((step, start + rank), 0.0) for rank in range(ranks)]
            slowest += max(micro_step)
            of_rank = [sum(pair) for pair in zip(of_rank, micro_step, strict=True)]
        once += max(of_rank)
        packs = [held for (at, _), held in slots.items() if at == step]
        counts.append(sum(len(held) for held in packs))
        for held in packs:
            weights["step"] += [1 / counts[-1]] * len(held)
            weights["pack"] += [1 / len(packs) / len(held)] * len(held)
    total = sum(cost.values())
    return {
        "slowest": slowest,
        "idle": 1 - total / (ranks * slowest),
        "idle_once_a_step": 1 - total / (ranks * once),
        "counts": counts,
        **{name: sum(of) ** 2 / (len(of) * sum(one**2 for one in of)) for name, of in weights.items()},
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_simulate_figures_are_those_counted_slot_by_slot(lengths_file, tmp_path, strategy, ranks):
    out = tmp_path / "plan.parquet"
    (row,) = simulate_batches(
        lengths_file,
        capacity=100,
        packs_per_step=4,
        ranks=ranks,
        strategy=strategy,
        out=out,
        gpus=2 * ranks,
        tflops=0.5,
        epochs=3,
    )
    table = pq.read_table(out)
    rows = zip(*(table[name].to_pylist() for name in ("step", "slot", "length")), strict=True)
    expected = oracle(rows, LLAMA_2_7B, row["slots_per_step"], ranks)
    assert row["idle"] == row["idle_by_ranks"][str(ranks)] == pytest.approx(expected["idle"], abs=1e-12)
    assert row["idle_once_a_step_by_ranks"][str(ranks)] == pytest.approx(expected["idle_once_a_step"], abs=1e-12)
    assert row["ess"] == row["ess_by_normaliser"]["step"] == pytest.approx(expected["step"])
    assert row["ess_by_normaliser"]["pack"] == pytest.approx(expected["pack"])
    assert row["ess_by_normaliser"]["epoch"] == pytest.approx(1)
    # Three epochs; each rank is two GPUs of half a TFLOP/s.
    assert row["hours"] == pytest.approx(3 * expected["slowest"] / 1e12 / 3600)
    assert row["time_vs_ideal"] == pytest.approx(1 / (1 - expected["idle"]))
    assert row["micro_steps"] == row["steps"] * row["slots_per_step"] // ranks
    spread = row["sequences_per_step_spread"]
    counts = expected["counts"]
    assert (spread["minimum"], spread["maximum"]) == (min(counts), max(counts))
    assert spread["standard_deviation"] == pytest.approx(np.std(counts))
    assert row["sequences_per_step"] == pytest.approx(np.mean(counts))


def test_simulate_long_token_share_is_that_of_each_step(tmp_path):
    # Capacity 80: from 10 tokens a sequence is long. One pack a step, in an order of chance.
    np.save(tmp_path / "lengths.npy", np.array([80, 20] + [9] * 4))
    (row,) = simulate_batches(tmp_path / "lengths.npy", capacity=80, packs_per_step=1, ranks=1, strategy="bfd")
    assert row["long_tokens"] == 10
    share = row["long_token_share"]
    assert (share["minimum"], share["maximum"]) == (pytest.approx(20 / 56), 1.0)


@pytest.mark.parametrize(
    ("lengths", "capacity", "slots"),
    [
        ([10] * 40, 40, 8),  # four fit into a pack: two packs are eight slots
        ([10] * 40, 10, 2),
        ([7] * 40, 10, 2),  # 280 tokens are 28 packs: 1.4 sequences in each
    ],
)
def test_simulate_a_step_without_packing_holds_as_many_sequences_as_one_with(tmp_path, lengths, capacity, slots):
    np.save(tmp_path / "lengths.npy", np.array(lengths))
    rows = simulate_batches(tmp_path / "lengths.npy", capacity=capacity, packs_per_step=2, ranks=2)
    assert {row["strategy"]: row["slots_per_step"] for row in rows} == {
        "naive": slots, "sorted": slots, "longalign": 2, "bfd": 2, "balanced": 2,
    }  # fmt: skip


def test_simulate_without_speed_predicts_no_hours(lengths_file):
    (row,) = simulate_batches(lengths_file, capacity=100, packs_per_step=4, ranks=4, strategy="bfd")
    assert (row["hours"], row["hardware"]) == (None, None)


def test_compare_of_many_sequences_takes_a_sample_for_the_baselines_alone():
    lengths = np.full(1000, 10)
    batching = Batching(strategy="bfd", capacity=40, packs_per_step=4, alike=2, cost_model=CostModel(), seed=0)
    (order,) = order_epochs(lengths, batching, epochs=1)
    compared = compare_with_baselines(order, lengths, lengths, batching, alpha=1.0, source="a test", most_sequences=100)
    found = {row["strategy"]: (row["sequences"], row["packs"], row["ranks"]) for row in compared.rows}
    assert found == {"naive": (100, 100, 2), "longalign": (100, 25, 2), "bfd": (1000, 250, 2)}
    page = comparison_page(compared, own="bfd")
    assert "1,000 sequences, 10,000 tokens" in page
    assert "naive and longalign: of a sample of 100 sequences" in page


def test_simulate_profile_predicts_hours_from_measured_seconds(lengths_file, tmp_path):
    # Packs that take 2 seconds whatever they hold, 0.01 a token and 0.001 a squared token.
    packs = ([90], [30, 30, 30], [10] * 9, [40], [5, 5])
    measured = [{"lengths": one, "seconds": 2 + sum(0.01 * n + 0.001 * n**2 for n in one)} for one in packs]
    profile, out = tmp_path / "packs.jsonl", tmp_path / "plan.parquet"
    profile.write_text("".join(json.dumps(one) + "\n" for one in measured))
    options = {"capacity": 100, "packs_per_step": 4, "ranks": 2, "strategy": "bfd"}
    (row,) = simulate_batches(lengths_file, **options, out=out, profile=profile, epochs=2, picture=tmp_path / "p.svg")
    table = pq.read_table(out)
    rows = zip(*(table[name].to_pylist() for name in ("step", "slot", "length")), strict=True)
    expected = oracle(rows, (0.01, 0.001), 4, 2)
    assert row["cost_unit"] == "seconds"
    assert row["idle"] == pytest.approx(expected["idle"], rel=1e-6)
    assert row["hours"] == pytest.approx(2 * (expected["slowest"] + 2 * row["micro_steps"]) / 3600, rel=1e-6)
    assert row["hardware"] == {"gpus": None, "tflops": None, "epochs": 2}
    assert "seconds, by measured packs" in (tmp_path / "p.svg").read_text()
    with pytest.raises(InputError, match="leave out --gpus and --tflops"):
        simulate_batches(lengths_file, **options, profile=profile, tflops=1.0)
    with pytest.raises(InputError, match="cannot be read"):
        simulate_batches(lengths_file, **options, profile=tmp_path / "none.jsonl")


@pytest.mark.parametrize("normaliser", ["step", "epoch", "pack"])
def test_compare_with_figures_that_are_known_equals_gathering_them_anew(normaliser):
    lengths = np.random.default_rng(0).integers(1, 40, 500)
    targets = lengths // 2
    batching = Batching(strategy="balanced", capacity=40, packs_per_step=4, alike=2, cost_model=CostModel(), seed=0)
    (order,) = order_epochs(lengths, batching, epochs=1)
    report = PlanReport(
        lengths=lengths, targets=targets, capacity=40, packs_per_step=4, alpha=0.5, normaliser=normaliser,
        cost_model=CostModel(),
    )  # fmt: skip
    report.add(order)
    anew = compare_with_baselines(order, lengths, targets, batching, alpha=0.5, source="a test")
    known = compare_with_baselines(
        order, lengths, targets, batching, alpha=0.5, source="a test", figures=report.figures()
    )
    assert known.rows == anew.rows
