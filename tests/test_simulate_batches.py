from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_core.batching.simulate import simulate_batches
from longalign_core.errors import DataError, InputError

KEYS = ["strategy", "packs", "utilisation", "idle", "ess", "steps", "sequences_per_step"]


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
    assert list(by_name) == ["naive", "sorted", "longalign", "bfd", "balanced"]
    assert all(list(row) == KEYS for row in rows)
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
        ({"capacity": 10**10}, "--capacity is 10000000000"),
        ({"capacity": 50}, r"tokens but a pack holds 50; .* raise"),
        ({"strategy": "best"}, "'best' is unknown; choose one of naive, sorted"),
        ({"out": "plan.parquet"}, "say which with --strategy"),
        ({"model": "missing.json"}, r"missing\.json cannot be read"),
    ],
)
def test_simulate_wrong_option_is_refused(lengths_file, tmp_path, options, message):
    for name in ("out", "model"):
        if name in options:
            options = options | {name: tmp_path / options[name]}
    with pytest.raises(InputError, match=message):
        simulate_batches(lengths_file, **({"capacity": 100, "packs_per_step": 4, "ranks": 2} | options))


@pytest.mark.parametrize("content", [np.array([1.5]), np.ones((2, 2), dtype=int), None])
def test_simulate_file_that_holds_no_lengths_is_refused(tmp_path, content):
    path = tmp_path / "lengths.npy"
    if content is None:
        path.write_text("1\n2\n")
    else:
        np.save(path, content)
    with pytest.raises(InputError, match=r"lengths\.npy is no"):
        simulate_batches(path, capacity=10, packs_per_step=1, ranks=1)


def test_simulate_length_zero_names_the_sequence(tmp_path):
    np.save(tmp_path / "lengths.npy", np.array([3, 0, 5]))
    with pytest.raises(DataError, match="sequence 1 has 0 tokens"):
        simulate_batches(tmp_path / "lengths.npy", capacity=10, packs_per_step=1, ranks=1)
