"""What a real run of two ranks measures, against plain transformers on one sequence at a time."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from longalign_core.batch_plan import BatchPlan
from longalign_core.batching.cost_profile import read_profile
from longalign_core.batching.model_file import cost_model_of
from longalign_core.config.runtime import Runtime
from longalign_core.config.training import Optimizer
from longalign_core.errors import InputError
from longalign_core.record_files import read_records
from longalign_core.stage import Artifact, publishing
from longalign_core.stages.measurements import write_slot_costs
from longalign_core.stages.training import train
from longalign_core.training.length_losses import BUCKETS
from longalign_core.training.metrics import StepMetrics
from longalign_core.training.waiting import idle_share
from tests.tiny_training import training_config, write_model, write_plan, write_tokens

LENGTHS = (700, 1500, 40, 4200, 9, 1100)
# Two ranks, two micro-steps: rank 0 has slots 0 and 2. An empty slot in the first step.
PACKS = ((0, 2), (1,), (3,), (), (4, 5), (0, 1), (2,), (5,), (3,), (1, 4), (2,), (0,))
EXPECTED = {"0-1k": (0, 2), "1k-4k": (1,), "4k-8k": (3,)}


class Nowhere:
    def publish(self, stage, config, label, folder, counts):
        return Artifact(stage=stage.name, key="0" * 16, label=label, done=True)

    def ancestors(self):
        return []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose weights do not move, and its counts."""
    root = tmp_path_factory.mktemp("measured")
    write_model(root / "base")
    store = write_tokens(root / "tokens", LENGTHS)
    write_plan(root / "plan", store, PACKS, packs_per_step=4)
    counts = measure(root, "out", zero_stage=3, peak_tflops=1e-3)
    return root, store, counts


def measure(root, out, **settings):
    (root / out).mkdir()
    config = training_config(root / "base", optimizer=Optimizer(learning_rate=1e-30))
    inputs = {"plan": (root / "plan",), "tokens": (root / "tokens",)}
    runtime = Runtime(scratch=root / "scratch", ranks=2, gpus=0, **settings)
    with publishing(Nowhere()):
        return train.function(config, inputs, root / out, runtime)


def steps_of(root, out="out"):
    return list(read_records(root / out / "metrics.parquet", StepMetrics))


def losses_one_at_a_time(root, store, sequence):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float64, attn_implementation="sdpa")
    ids, is_target = (torch.from_numpy(array) for array in store.sequence(sequence))
    with torch.no_grad():
        logits = model(ids[None], use_cache=False).logits[0]
    losses = -torch.log_softmax(logits[:-1], dim=-1).gather(1, ids[1:, None])[:, 0]
    return losses[is_target[1:]].numpy()


@pytest.mark.slow
def test_losses_by_length_two_ranks_equal_one_sequence_at_a_time(run):
    root, store, _ = run
    first = steps_of(root)[0]
    found = dict(zip(BUCKETS, first.bucket_losses, strict=True))
    losses = {sequence: losses_one_at_a_time(root, store, sequence) for sequence in (0, 1, 2, 3)}
    for name, sequences in EXPECTED.items():
        expected = np.mean([losses[sequence].mean() for sequence in sequences])
        assert found.pop(name) == pytest.approx(expected, rel=1e-5)
    assert set(found.values()) == {None}
    assert first.token_loss == pytest.approx(np.concatenate(list(losses.values())).mean(), rel=1e-5)
    assert first.loss == pytest.approx(np.mean([one.mean() for one in losses.values()]), rel=1e-5)
    assert first.target_tokens == sum(len(one) for one in losses.values())


@pytest.mark.slow
def test_idle_is_measured_beside_the_plans_prediction(run):
    root, _, counts = run
    steps = steps_of(root)
    costs = cost_model_of(root / "base").costs(np.array(LENGTHS))
    # Ranks meet in every micro-step: slots 0 and 1, then 2 and 3.
    slots = [costs[[0, 2]].sum(), costs[1], costs[3], 0.0]
    longest = max(slots[:2]) + max(slots[2:])
    assert steps[0].idle_predicted == pytest.approx(1 - sum(slots) / (2 * longest), rel=1e-6)
    assert steps[0].rank_costs == pytest.approx((slots[0] + slots[2], slots[1] + slots[3]))
    assert steps[0].mfu == pytest.approx(sum(slots) / (steps[0].seconds * 2 * 1e9), rel=1e-6)
    for step in steps:
        assert len(step.slot_seconds) == 4 and all(seconds > 0 for seconds in step.slot_seconds)
        by_slot = np.array(step.slot_seconds).reshape(2, 2)
        assert step.rank_seconds == pytest.approx(by_slot.sum(axis=0))
        assert step.idle_measured == pytest.approx(1 - by_slot.sum() / (2 * by_slot.max(axis=1).sum()))
        assert step.slowest_seconds <= step.seconds
    # The long slot is the longer work, whoever else waits meanwhile.
    assert steps[0].slot_seconds[2] > steps[0].slot_seconds[3]
    assert counts["idle_measured"] == pytest.approx(idle_share(step.measured for step in steps), rel=1e-5)
    assert counts["idle_predicted"] == pytest.approx(idle_share(step.predicted for step in steps), rel=1e-5)
    assert counts["hours"] > 0 and counts["tokens_per_second"] > 0 and counts["steps"] == 3


@pytest.mark.slow
def test_ranks_that_share_packs_measure_the_same_losses_and_meet_inside_each(run):
    root, _, _ = run
    measure(root, "shared", zero_stage=1, sequence_parallel=2)
    for apart, shared in zip(steps_of(root), steps_of(root, "shared"), strict=True):
        assert shared.token_loss == pytest.approx(apart.token_loss, rel=1e-5)
        for one, other in zip(apart.bucket_losses, shared.bucket_losses, strict=True):
            assert one == other or other == pytest.approx(one, rel=1e-5)
        # Both ranks have half of every slot: the plan foresees no waiting.
        assert shared.idle_predicted == 0 and sum(shared.rank_costs) == pytest.approx(sum(apart.rank_costs))
        assert len(shared.slot_seconds) == 4
        assert shared.slowest_seconds == pytest.approx(sum(shared.slot_seconds))


@pytest.mark.slow
def test_measured_slots_are_a_cost_profile_that_batches_read(run):
    root, _, _ = run
    packs = read_profile(root / "out")
    slots = BatchPlan.open(root / "plan").slots(2)
    assert [pack.lengths for pack in packs] == [tuple(one.length for one in slot) for slot in slots]
    assert [pack.seconds for pack in packs] == list(steps_of(root)[2].slot_seconds)


@pytest.mark.slow
def test_json_lines_and_the_page_are_part_of_the_product(run):
    root, _, _ = run
    rows = [orjson.loads(line) for line in (root / "out" / "metrics.jsonl").read_bytes().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(step.step, step.loss) for step in steps_of(root)]
    assert rows[0]["loss_by_length/4k-8k"] > 0 and rows[0]["idle/measured"] >= 0
    assert "after 3 steps" in (root / "out" / "report.html").read_text()


def test_slot_costs_of_a_model_whose_costs_are_not_known_are_none(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert write_slot_costs(tmp_path, tmp_path, tmp_path) is None


def test_tracker_that_is_not_installed_is_refused_before_the_start(tmp_path):
    write_model(tmp_path / "base")
    store = write_tokens(tmp_path / "tokens", (7, 9))
    write_plan(tmp_path / "plan", store, ((0,), (1,)), packs_per_step=2)
    (tmp_path / "out").mkdir()
    inputs = {"plan": (tmp_path / "plan",), "tokens": (tmp_path / "tokens",)}
    runtime = Runtime(scratch=tmp_path, ranks=2, trackers=("mlflow",))
    with pytest.raises(InputError, match=r"LONGALIGN_TRACKERS names mlflow, which is not installed"):
        train.function(training_config(tmp_path / "base"), inputs, tmp_path / "out", runtime)
