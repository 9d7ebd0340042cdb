"""The costs that a recipe's `batching` section says packs are compared by."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from longalign_core.batch_plan import BatchPlan
from longalign_core.batching.cost import CostModel
from longalign_core.config.batching import BatchingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.stages.batching import batches
from longalign_core.stages.costs import cost_model_for
from longalign_core.token_store import TokenStoreWriter

RUNTIME = Runtime(store="unused")
CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 128,
    "sliding_window": 16,
}


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def profile(tmp_path) -> Path:
    file = tmp_path / "measured.jsonl"
    packs = [[64], [32, 32], [8] * 8, [40, 20, 4]]
    file.write_text(
        "".join(
            json.dumps({"lengths": pack, "seconds": sum(0.1 * n + 0.001 * n * n for n in pack)}) + "\n"
            for pack in packs
        )
    )
    return file


def test_costs_nothing_named_are_llama_2_7bs():
    assert cost_model_for(BatchingConfig(), RUNTIME) == CostModel(linear=42e9, quadratic=786_432)


def test_costs_of_a_model_folder_or_its_config_are_its_own(model):
    expected = CostModel.from_model_config(CONFIG)
    assert expected.windowed
    for named in (model, model / "config.json"):
        assert cost_model_for(BatchingConfig(model=str(named)), RUNTIME) == expected


def test_costs_of_a_profile_are_seconds(profile):
    costs = cost_model_for(BatchingConfig(cost_profile=str(profile)), RUNTIME)
    assert costs.costs(np.array([10])) == pytest.approx([1.1])
    assert costs.unit == "seconds"


def test_costs_of_a_profile_and_a_model_keep_the_models_windows(profile, model):
    costs = cost_model_for(BatchingConfig(cost_profile=str(profile), model=str(model)), RUNTIME)
    assert [window for window, _ in costs.windowed] == [16]
    assert costs.unit == "seconds"


def test_costs_of_a_folder_without_config_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json cannot be read as JSON"):
        cost_model_for(BatchingConfig(model=str(tmp_path)), RUNTIME)


def test_costs_of_a_config_that_is_a_list_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="no model config"):
        cost_model_for(BatchingConfig(model=str(tmp_path)), RUNTIME)


def test_batches_stage_puts_side_by_side_what_costs_alike_as_measured(tmp_path):
    with TokenStoreWriter(tmp_path / "tokens") as writer:
        for length in np.random.default_rng(0).integers(1, 64, 200).tolist():
            writer.append(np.zeros(length, dtype=np.int64), np.arange(length) > 0)
    (tmp_path / "attention.jsonl").write_text(
        # Tokens cost nothing here, so that only squared tokens count.
        "".join(json.dumps({"lengths": pack, "seconds": sum(n * n for n in pack)}) + "\n" for pack in ([64], [32] * 2))
    )
    config = BatchingConfig(capacity=64, packs_per_step=4, epochs=1, cost_profile=str(tmp_path / "attention.jsonl"))
    counts = batches.function(config, {"tokens": (tmp_path / "tokens",)}, tmp_path / "plan", RUNTIME)
    plan = BatchPlan.open(tmp_path / "plan")
    steps = sorted(
        sorted(sum(placed.length**2 for placed in slot) for slot in plan.slots(step) if slot)
        for step in range(plan.meta.num_steps - 1)
    )
    assert len(steps) > 5
    assert all(before[-1] <= after[0] for before, after in pairwise(steps))
    assert counts["idle"] < 0.2
