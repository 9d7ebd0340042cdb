"""What is said beside the figures of strategies, and what measured packs are doubted for."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from longalign_core.batching.notes import in_hours, notes, verdict
from longalign_core.batching.simulate import simulate_batches
from longalign_core.errors import InputError


@pytest.fixture
def lengths(tmp_path):
    file = tmp_path / "lengths.npy"
    np.save(file, np.clip(np.random.default_rng(0).lognormal(3.6, 1.5, 3_000), 1, 1_000).astype(int))
    return file


def compared(lengths, **options):
    return simulate_batches(lengths, capacity=1_000, packs_per_step=8, ranks=4, **options)


def test_verdict_of_strategies_as_fast_as_one_another_takes_few_micro_steps_and_like_steps(lengths):
    rows = compared(lengths)
    by_name = {row["strategy"]: row for row in rows}
    near = [row for row in rows if row["time_vs_ideal"] <= 1.05 * min(one["time_vs_ideal"] for one in rows)]
    assert {"sorted", "balanced"} <= {row["strategy"] for row in near}
    assert {"bfd", "balanced"} <= {row["strategy"] for row in near if row["micro_steps"] < 500}
    spreads = {name: row["sequences_per_step_spread"]["standard_deviation"] for name, row in by_name.items()}
    assert spreads["balanced"] < spreads["bfd"]
    assert verdict(rows).startswith("Best here: balanced, ")
    assert f"against {by_name['sorted']['micro_steps']:,} of sorted" in verdict(rows)


def test_verdict_of_one_strategy_says_nothing(lengths):
    assert verdict(compared(lengths, strategy="bfd")) == ""


def test_notes_of_few_micro_steps_say_that_the_last_step_decides(lengths, tmp_path):
    few = tmp_path / "few.npy"
    np.save(few, np.array([10, 20, 30]))
    assert any("last step decides" in note for note in notes(compared(few)))
    assert not any("last step decides" in note for note in notes(compared(lengths)))


@pytest.mark.parametrize(
    ("hours", "shown"), [(None, ""), (0.00214, "0.00214"), (3.085, "3.08"), (16.44, "16.4"), (1234.4, "1,234")]
)
def test_hours_are_shown_in_three_digits(hours, shown):
    assert in_hours(hours) == shown


def test_measured_packs_that_scatter_or_are_small_are_doubted(lengths, tmp_path, caplog):
    profile = tmp_path / "profile.jsonl"
    exact = [{"lengths": [tokens], "seconds": 0.001 * tokens + 1e-6 * tokens**2} for tokens in (100, 400, 700, 1_000)]
    profile.write_text("\n".join(map(json.dumps, exact)))
    with caplog.at_level(logging.WARNING):
        compared(lengths, profile=profile)
        assert caplog.text == ""
        exact[1]["seconds"] *= 4
        profile.write_text("\n".join(map(json.dumps, exact[:3])))
        simulate_batches(lengths, capacity=2_000, packs_per_step=8, ranks=4, profile=profile)
    assert "from what their lengths explain" in caplog.text
    assert "the largest measured pack has 700 tokens, packs here have 2,000" in caplog.text


def test_plan_under_another_ending_than_parquet_is_refused(lengths, tmp_path):
    with pytest.raises(InputError, match=r"plan\.csv is no \.parquet"):
        compared(lengths, strategy="bfd", out=tmp_path / "plan.csv")
    assert not (tmp_path / "plan.csv").exists()


def test_picture_that_stands_alone_says_what_it_shows(lengths, tmp_path):
    compared(lengths, picture=tmp_path / "packs.svg")
    words = (tmp_path / "packs.svg").read_text()
    assert "lengths.npy: 3,000 sequences, packs of 1,000 tokens" in words
    assert "Best here: balanced" in words and "costs of its own" in words
