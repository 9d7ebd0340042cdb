from __future__ import annotations

import json
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_core.batch_plan import BatchPlan, EpochOrder, Placement
from longalign_core.errors import DataError, InputError

LENGTHS = np.array([4, 3, 5, 2, 6])
TARGETS = np.array([2, 1, 4, 1, 3])
FIRST = [[0, 1], [2], [3, 4]]
SECOND = [[4], [1, 2], [3], [0]]


def write(folder: Path, *packs_of_epochs: list[list[int]], **options) -> BatchPlan:
    values = {
        "strategy": "balanced",
        "capacity": 8,
        "packs_per_step": 2,
        "alike": 2,
        "alpha": 1.0,
        "normaliser": "step",
        "seed": 3,
        "lengths": LENGTHS,
        "targets": TARGETS,
        "epochs": (EpochOrder.of_packs(packs) for packs in packs_of_epochs),
    }
    return BatchPlan.write(folder, **(values | options))


def test_plan_two_epochs_slots_are_as_laid_out(tmp_path):
    plan = write(tmp_path, FIRST, SECOND)
    assert plan.meta.num_steps == 4
    assert plan.meta.epochs == 2
    assert plan.slots(0) == ((Placement(0, 0, 4, 2), Placement(1, 4, 3, 1)), (Placement(2, 0, 5, 4),))
    assert plan.slots(1) == ((Placement(3, 0, 2, 1), Placement(4, 2, 6, 3)), ())
    assert plan.slots(2) == ((Placement(4, 0, 6, 3),), (Placement(1, 0, 3, 1), Placement(2, 3, 5, 4)))
    assert plan.slots(3) == ((Placement(3, 0, 2, 1),), (Placement(0, 0, 4, 2),))


def test_plan_steps_asked_for_in_any_order_are_the_same(tmp_path):
    plan = write(tmp_path, FIRST, SECOND)
    forwards = [plan.slots(step) for step in range(4)]
    assert [BatchPlan.open(tmp_path).slots(step) for step in (3, 0, 2, 1)] == [forwards[i] for i in (3, 0, 2, 1)]


def test_plan_larger_than_a_row_group_finds_every_step(tmp_path):
    count = 250_000
    packs = EpochOrder(np.arange(count)[::-1], np.arange(count) // 7)
    plan = BatchPlan.write(
        tmp_path,
        strategy="bfd",
        capacity=7,
        packs_per_step=4,
        alike=4,
        alpha=1.0,
        normaliser="step",
        seed=0,
        lengths=np.ones(count, dtype=np.int32),
        targets=np.ones(count, dtype=np.int32),
        epochs=[packs],
    )
    assert pq.ParquetFile(tmp_path / "plan.parquet").num_row_groups > 1
    for step in (0, 3571, 3572, 7000, plan.meta.num_steps - 1):
        placed = [placement.sequence for slot in plan.slots(step) for placement in slot]
        assert placed == list(range(count - 1 - step * 28, max(-1, count - 1 - (step + 1) * 28), -1))


def test_plan_z_epoch_is_the_mean_of_the_steps_sums(tmp_path):
    plan = write(tmp_path, FIRST, SECOND, alpha=0.5, normaliser="epoch")
    steps = [[plan.slots(step) for step in steps] for steps in ((0, 1), (2, 3))]
    for epoch, z in zip(steps, plan.meta.z_epoch, strict=True):
        sums = [sum(place.targets**0.5 for slot in slots for place in slot) for slots in epoch]
        assert z == pytest.approx(np.mean(sums), rel=1e-12)


def test_plan_loss_scales_have_the_shape_of_the_slots(tmp_path):
    plan = write(tmp_path, FIRST, SECOND)
    # Three sequences in step 0, two of them with N 2 and 4: 1/(N M).
    assert plan.loss_scales(0) == ((pytest.approx(1 / 6), pytest.approx(1 / 3)), (pytest.approx(1 / 12),))
    assert plan.loss_scales(1) == ((pytest.approx(1 / 2), pytest.approx(1 / 6)), ())


def test_plan_json_says_how_it_was_made(tmp_path):
    write(tmp_path, FIRST)
    values = json.loads((tmp_path / "plan.json").read_text())
    assert values["strategy"] == "balanced"
    assert values["num_steps"] == 2
    assert values["schema"] == 1


def test_plan_parquet_holds_the_agreed_columns(tmp_path):
    write(tmp_path, FIRST)
    table = pq.read_table(tmp_path / "plan.parquet")
    assert table.column_names == ["epoch", "step", "slot", "offset", "sequence", "length", "targets"]
    second = {"epoch": 0, "step": 0, "slot": 0, "offset": 4, "sequence": 1, "length": 3, "targets": 1}
    assert table.to_pylist()[1] == second


def test_open_without_plan_json_is_refused(tmp_path):
    write(tmp_path, FIRST)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(DataError, match="run `batches` again"):
        BatchPlan.open(tmp_path)


def test_open_cut_parquet_is_refused(tmp_path):
    write(tmp_path, FIRST)
    file = tmp_path / "plan.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="no whole parquet file"):
        BatchPlan.open(tmp_path)


def test_open_cut_plan_json_is_refused(tmp_path):
    write(tmp_path, FIRST)
    file = tmp_path / "plan.json"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="no whole JSON; run `batches` again"):
        BatchPlan.open(tmp_path)


def test_open_damaged_parquet_is_refused(tmp_path):
    write(tmp_path, FIRST)
    file = tmp_path / "plan.parquet"
    data = file.read_bytes()
    file.write_bytes(data[:-48] + b"\xff" * 40 + data[-8:])
    with pytest.raises(DataError, match="no whole parquet file"):
        BatchPlan.open(tmp_path)


@pytest.mark.parametrize(
    ("packs_per_step", "alike", "message"),
    [
        (0, 1, "packs_per_step is 0; give a number from 1 up"),
        (4, 0, "alike is 0; give a number from 1 up"),
        (4, 3, "alike 3 does not divide packs_per_step 4; choose one of its divisors"),
    ],
)
def test_write_impossible_steps_are_refused_before_an_older_plan_is_touched(tmp_path, packs_per_step, alike, message):
    write(tmp_path, FIRST)
    with pytest.raises(InputError, match=message):
        write(tmp_path, SECOND, packs_per_step=packs_per_step, alike=alike)
    assert BatchPlan.open(tmp_path).slots(1) == ((Placement(3, 0, 2, 1), Placement(4, 2, 6, 3)), ())


def test_write_that_fails_half_way_leaves_nothing_that_looks_whole(tmp_path):
    write(tmp_path, FIRST)

    def epochs():
        yield EpochOrder.of_packs(FIRST)
        raise DataError("sequence 3 is gone")

    with pytest.raises(DataError, match="is gone"):
        write(tmp_path, epochs=epochs())
    with pytest.raises(DataError, match="run `batches` again"):
        BatchPlan.open(tmp_path)


# Writes one plan after another and says so; the epochs of a plan after the first come once a line is read.
WRITER = """
import sys
import tracemalloc
from pathlib import Path
import numpy as np
from longalign_core.batch_plan import BatchPlan, EpochOrder

folder, waits = Path(sys.argv[1]), sys.argv[2] == "waits"
lengths = np.full(300_000, 5, dtype=np.int32)


def epochs(seed):
    for epoch in range(2):
        order = np.random.default_rng([seed, epoch]).permutation(len(lengths)).astype(np.int32)
        yield EpochOrder(order, np.arange(len(lengths), dtype=np.int32) // 3)
        print("epoch", flush=True)
        if waits and seed:
            sys.stdin.readline()


for seed in range(10_000):
    BatchPlan.write(
        folder, strategy="naive", capacity=16, packs_per_step=8, alike=8, alpha=0.5, normaliser="epoch", seed=seed,
        lengths=lengths, targets=lengths - 1, epochs=epochs(seed),
    )
    print("plan", flush=True)
"""


def start_writer(folder: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_writer_killed_while_it_writes_over_a_whole_plan_leaves_none(tmp_path):
    process = start_writer(tmp_path, "waits")
    lines = [process.stdout.readline() for _ in range(4)]
    assert lines == ["epoch\n", "epoch\n", "plan\n", "epoch\n"]
    kill(process)
    with pytest.raises(DataError, match="run `batches` again"):
        BatchPlan.open(tmp_path)
    write(tmp_path, FIRST)
    assert BatchPlan.open(tmp_path).meta.num_steps == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["plan.json", "plan.parquet"]


@pytest.mark.parametrize("num_lines", [1, 2, 3, 5])
def test_writer_killed_at_any_moment_leaves_a_whole_plan_or_none(tmp_path, num_lines):
    process = start_writer(tmp_path, "goes on")
    for _ in range(num_lines):
        process.stdout.readline()
    kill(process)
    try:
        plan = BatchPlan.open(tmp_path)
    except DataError:
        return
    table = pq.read_table(tmp_path / "plan.parquet")
    assert plan.meta.num_steps == 25_000
    first = np.random.default_rng([plan.meta.seed, 0]).permutation(300_000)
    second = np.random.default_rng([plan.meta.seed, 1]).permutation(300_000)
    assert table["sequence"].to_numpy().tolist() == [*first, *second]


def test_write_holds_a_row_group_besides_what_it_is_given(tmp_path):
    count = 4_000_000
    order = EpochOrder(np.arange(count, dtype=np.int32), np.arange(count, dtype=np.int32) // 3)
    lengths = np.full(count, 5, dtype=np.int32)
    write(tmp_path, FIRST)  # what is loaded at the first use does not count
    tracemalloc.start()
    try:
        write(tmp_path, lengths=lengths, targets=lengths, capacity=15, epochs=[order])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000, "one array of an epoch's rows takes 16 MB"
