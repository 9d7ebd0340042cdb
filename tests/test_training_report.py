"""The page and the figures of a training run."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from longalign_core.record_files import write_records
from longalign_core.training.curve import curve_picture, curve_rows
from longalign_core.training.metrics import StepMetrics, run_figures, scalars
from longalign_core.training.pictures import smoothed
from longalign_core.training.report import training_page
from tests.measuring_run import made_up_steps


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]+>", " ", page, flags=re.DOTALL))


def test_run_figures_hand_checked():
    figures = run_figures(made_up_steps(9, on_gpu=True))
    assert figures["hours"] == pytest.approx(18 / 3600)
    assert figures["tokens_per_second"] == 500 and figures["mfu"] == pytest.approx(0.4)
    assert figures["idle_measured"] == pytest.approx(1 - 2.8 / 3.2)
    assert figures["idle_predicted"] == pytest.approx(0.1)


def test_scalars_leave_out_what_is_not_known():
    known = scalars(made_up_steps(1)[0])
    assert known["speed/tokens_per_second"] == 500 and known["speed/target_tokens_per_second"] == 50
    assert known["loss_by_length/64k-up"] == 1.5 and "loss_by_length/1k-4k" not in known
    assert known["memory/host_rss_gib"] == 1 and "memory/device_allocated_gib" not in known
    assert "speed/mfu" not in known
    assert known["idle_by_rank/measured_1"] == pytest.approx(0.25)


def test_training_page_says_the_headlines_and_asks_nothing_of_the_network():
    page = training_page(made_up_steps(700, on_gpu=True), "train")
    text = text_of(page)
    assert "Loss 0.0057 after 700 steps" in text
    assert "500 tokens/s, 40.0 % of the GPUs' peak FLOPs" in text.replace("&#39;", "'")
    assert "Ranks waited 12.5 % of the time; by the plan's costs 10.0 %" in text.replace("&#39;", "'")
    assert page.count("<svg") == 9
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_training_page_of_one_step_without_times_still_shows_the_losses():
    (step,) = made_up_steps(1)
    bare = dataclasses.replace(
        step, idle_measured=None, idle_predicted=None, rank_seconds=(), rank_costs=(), slot_seconds=(), mfu=None
    )
    page = training_page([bare], "extend")
    assert "waited" not in text_of(page) and page.count("<svg") == 6


def test_training_page_of_a_run_that_went_on_with_other_ranks_shows_the_last_ones():
    steps = made_up_steps(4)
    steps[0] = dataclasses.replace(steps[0], rank_seconds=(1.0,), slowest_seconds=1.0)
    assert "rank 0 0%; rank 1 25%" in training_page(steps, "train")


def test_smoothed_constant_stays_and_missing_values_are_passed_over():
    values = np.full(300, np.nan)
    values[[1, 3]] = 2.0
    means = smoothed(values)
    assert np.isnan(means[0])
    np.testing.assert_allclose(means[1:], 2.0)


def test_smoothed_step_up_is_followed_slowly():
    means = smoothed(np.repeat([0.0, 1.0], 150))
    assert 0.05 < means[150] < 0.2 and means[-1] > 0.99


def test_curve_of_the_ui_is_a_picture_that_stands_alone_and_rows_from_first_to_last(tmp_path):
    write_records(tmp_path / "metrics.parquet", made_up_steps(1000), StepMetrics)
    picture = ElementTree.fromstring(curve_picture(tmp_path))
    assert picture.tag == "{http://www.w3.org/2000/svg}svg" and "var(" not in curve_picture(tmp_path)
    rows = curve_rows(tmp_path)
    assert len(rows) == 20 and rows[0]["step"] == 1 and rows[-1]["step"] == 1000
    assert rows[0] | {"loss": "4.0000", "waiting, measured": "12.5 %", "MFU": ""} == rows[0]


def test_curve_rows_of_a_short_run_are_all_its_steps(tmp_path):
    write_records(tmp_path / "metrics.parquet", made_up_steps(3), StepMetrics)
    assert [row["step"] for row in curve_rows(tmp_path)] == [1, 2, 3]
