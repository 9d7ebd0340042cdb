from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from longalign_core.batching.cost import CostModel
from longalign_core.batching.cost_profile import MeasuredPack, read_profile
from longalign_core.errors import InputError

FULL = ([65_536], [32_768] * 2, [16_384] * 4, [8_192] * 8, [30_000, 20_000, 10_000, 5_536], [1_024] * 64)
PART = ([20_000], [1_024] * 4, [5_000, 5_000])


def measured(packs, linear: float, quadratic: float, pack: float = 0.0, noise: float = 0.0) -> list[MeasuredPack]:
    generator = np.random.default_rng(0)
    return [
        MeasuredPack(
            lengths=tuple(lengths),
            seconds=(pack + sum(linear * n + quadratic * n * n for n in lengths))
            * (1 + noise * generator.standard_normal()),
        )
        for lengths in packs
    ]


def test_calibrated_full_packs_give_back_what_they_were_made_of():
    costs = CostModel().calibrated(measured(FULL, 3e-4, 5e-9))
    assert costs.linear == pytest.approx(3e-4) and costs.quadratic == pytest.approx(5e-9)
    assert costs.unit == "seconds" and costs.pack == 0.0 and costs.misfit == pytest.approx(0.0, abs=1e-9)
    assert costs.costs(np.array([1000]))[0] == pytest.approx(0.3 + 0.005)


def test_calibrated_part_filled_packs_tell_what_a_pack_costs_by_itself():
    costs = CostModel().calibrated(measured([*FULL, *PART], 3e-4, 5e-9, pack=2.0))
    assert (costs.linear, costs.quadratic, costs.pack) == pytest.approx((3e-4, 5e-9, 2.0))


def test_calibrated_noisy_packs_come_near_and_say_by_how_much_they_miss():
    costs = CostModel().calibrated(measured(list(FULL) * 20, 3e-4, 5e-9, noise=0.05))
    assert costs.linear == pytest.approx(3e-4, rel=0.05) and costs.quadratic == pytest.approx(5e-9, rel=0.05)
    assert 0.03 < costs.misfit < 0.08


def test_calibrated_attention_that_seems_to_save_time_costs_nothing():
    costs = CostModel().calibrated(measured(FULL, 3e-4, -1e-10))
    assert costs.quadratic == 0.0
    assert costs.linear == pytest.approx(np.mean([pack.seconds for pack in measured(FULL, 3e-4, -1e-10)]) / 65_536)


def test_calibrated_model_with_windows_keeps_what_its_layers_cost_beside_one_another():
    model = CostModel(linear=10.0, quadratic=2.0, windowed=((1000, 6.0),))
    packs = [
        MeasuredPack(
            lengths=tuple(lengths),
            seconds=float((model.costs(np.array(lengths)) * 1e-9).sum()),
        )
        for lengths in FULL
    ]
    costs = model.calibrated(packs)
    assert costs.windowed[0][0] == 1000
    assert (costs.linear, costs.quadratic, costs.windowed[0][1]) == pytest.approx((1e-8, 2e-9, 6e-9))


@pytest.mark.parametrize(
    "packs",
    [[FULL[0]], [FULL[0]] * 5, [[8_192] * 8, [8_192] * 8, [8_190] * 8]],
    ids=["one", "the same", "nearly the same"],
)
def test_calibrated_packs_much_alike_are_refused(packs):
    with pytest.raises(InputError, match="too much alike"):
        CostModel().calibrated(measured(packs, 3e-4, 5e-9))


def test_calibrated_seconds_that_do_not_grow_are_refused():
    packs = [
        MeasuredPack(lengths=(length,), seconds=seconds) for length, seconds in ((1000, 9.0), (9000, 5.0), (60000, 1.0))
    ]
    with pytest.raises(InputError, match="do not grow"):
        CostModel().calibrated(packs)


def test_read_profile_file_or_its_folder_gives_the_packs(tmp_path):
    file = tmp_path / "cost_profile.jsonl"
    file.write_text('{"lengths": [3, 4], "seconds": 1.5}\n\n{"lengths": [9], "seconds": 2, "note": "warm"}\n')
    expected = [MeasuredPack(lengths=(3, 4), seconds=1.5), MeasuredPack(lengths=(9,), seconds=2.0)]
    assert read_profile(file) == read_profile(tmp_path) == expected


@pytest.mark.parametrize(
    "row",
    [
        {"lengths": [3]},
        {"seconds": 1.0},
        {"lengths": [], "seconds": 1.0},
        {"lengths": [3, 0], "seconds": 1.0},
        {"lengths": [3.5], "seconds": 1.0},
        {"lengths": [True], "seconds": 1.0},
        {"lengths": "3", "seconds": 1.0},
        {"lengths": [3], "seconds": 0},
        {"lengths": [3], "seconds": -1.0},
        {"lengths": [3], "seconds": "1"},
        {"lengths": [3], "seconds": True},
        [3, 1.0],
    ],
    ids=json.dumps,
)
def test_read_profile_row_that_is_no_measured_pack_is_named(tmp_path, row):
    file = tmp_path / "measured.jsonl"
    file.write_text('{"lengths": [3, 4], "seconds": 1.5}\n' + json.dumps(row) + "\n")
    with pytest.raises(InputError, match="line 2 of the cost profile"):
        read_profile(file)


@pytest.mark.parametrize(
    ("content", "message"), [("", "is empty"), ("\n \n", "is empty"), ("lengths,seconds\n3,1", "line 1")]
)
def test_read_profile_file_without_packs_is_refused(tmp_path, content, message):
    file = tmp_path / "measured.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        read_profile(file)


def test_read_profile_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_profile(Path(tmp_path / "nowhere.jsonl"))
