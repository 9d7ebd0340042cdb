from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_core.batch_plan import BatchPlan, EpochOrder, Placement
from longalign_core.errors import DataError

LENGTHS = np.array([4, 3, 5, 2, 6])
TARGETS = np.array([2, 1, 4, 1, 3])
FIRST = [[0, 1], [2], [3, 4]]
SECOND = [[4], [1, 2], [3], [0]]


def write(folder: Path, *epochs: list[list[int]], alpha: float = 1.0, normaliser: str = "step") -> BatchPlan:
    return BatchPlan.write(
        folder,
        strategy="balanced",
        capacity=8,
        packs_per_step=2,
        alike=2,
        alpha=alpha,
        normaliser=normaliser,
        seed=3,
        lengths=LENGTHS,
        targets=TARGETS,
        epochs=(EpochOrder.of_packs(packs) for packs in epochs),
    )


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
