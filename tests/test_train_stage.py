"""The stage `train`: models out of a batch plan, and the same ones after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import psutil
import pyarrow.parquet as pq
import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import CheckpointConfig
from longalign_core.errors import DataError, InputError, MissingArtifactError
from longalign_core.stage import Artifact, publishing
from longalign_core.stages.training import checkpoint, train
from tests.tiny_training import training_config, write_model, write_plan, write_tokens

LENGTHS = (7, 12, 30, 5, 9, 3, 21, 16)
PACKS = ((0, 1), (2,), (3, 4, 5), (6,), (7,))  # three steps of two slots, the last one half empty
EPOCHS = 15
NUM_STEPS = 3 * EPOCHS
REPOSITORY = Path(__file__).resolve().parent.parent


class KeptModels:
    """A publisher that keeps a loaded copy of every model, by its label."""

    def __init__(self, folder):
        self.folder = folder
        self.labels = []

    def publish(self, stage, config, label, folder, counts):
        from shutil import copytree

        assert stage.name == "checkpoint" and str(config.step) == label
        self.labels.append(label)
        copytree(folder, self.folder / label)
        return Artifact(stage=stage.name, key=f"{len(self.labels):016x}", label=label, done=True)


@pytest.fixture
def world(tmp_path):
    """A base model, a token store and a plan, and the stage's inputs."""
    write_model(tmp_path / "base")
    store = write_tokens(tmp_path / "tokens", LENGTHS)
    write_plan(tmp_path / "plan", store, PACKS, packs_per_step=2, epochs=EPOCHS)
    (tmp_path / "out").mkdir()
    return tmp_path


def inputs(world):
    return {"plan": (world / "plan",), "tokens": (world / "tokens",)}


def runtime(world, **changes):
    return Runtime(scratch=world / "scratch", ranks=2, gpus=0, checkpoint_interval=4, **changes)


def run_stage(world, config, out="out", models="models", **changes):
    publisher = KeptModels(world / models)
    (world / out).mkdir(exist_ok=True)
    with publishing(publisher):
        counts = train.function(config, inputs(world), world / out, runtime(world, **changes))
    return counts, publisher


def weights_of(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_train_publishes_models_that_load_and_learn_and_a_killed_run_gives_the_same(world):
    config = training_config(world / "base", keep_steps=(3,))
    counts, publisher = run_stage(world, config)

    # What the stage leaves.
    assert publisher.labels == ["3", "final"]
    assert sorted(path.name for path in (world / "out").iterdir() if path.name[0] != ".") == [
        "checkpoints.json",
        "deepspeed.json",
        "metrics.parquet",
    ]
    listed = orjson.loads((world / "out" / "checkpoints.json").read_bytes())
    assert [one["step"] for one in listed] == [3, "final"]
    assert listed[1]["address"] == "checkpoint/0000000000000002"
    metrics = pq.read_table(world / "out" / "metrics.parquet").to_pydict()
    assert metrics["step"] == list(range(1, NUM_STEPS + 1))
    assert metrics["tokens"] == [49, 38, 16] * EPOCHS and metrics["num_sequences"] == [3, 4, 1] * EPOCHS
    # In the last epoch the same sequences cost less than in the first.
    assert all(last < first / 2 for first, last in zip(metrics["loss"][:3], metrics["loss"][-3:], strict=True))
    assert counts["steps"] == NUM_STEPS and counts["checkpoints"] == 2
    assert not list((world / "out" / ".models").iterdir())
    models_load_and_differ(world)

    # The same run, its whole process killed after some steps, twice, then finished.
    killed = world / "killed"
    killed.mkdir()
    for attempt in range(2):
        kill_after(world, killed, 6, attempt)
    counts_again, publisher_again = run_stage(world, config, out="killed", models="models_again")
    assert counts_again == counts
    again = pq.read_table(killed / "metrics.parquet").to_pydict()
    for name in ("step", "loss", "learning_rate", "grad_norm", "tokens", "num_sequences"):
        assert again[name] == metrics[name], name
    assert publisher_again.labels[-1] == "final"
    final, final_again = (weights_of(world / folder / "final") for folder in ("models", "models_again"))
    assert all(np.array_equal(final[name], final_again[name]) for name in final)
    steps = [orjson.loads(line) for line in (killed / ".events.jsonl").read_bytes().splitlines()]
    done_again = sum(event["event"] == "step" for event in steps) - NUM_STEPS
    assert done_again < 12, "it went on from its resume points"


def models_load_and_differ(world):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = weights_of(world / "base")
    for label in ("3", "final"):
        folder = world / "models" / label
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.dtype == torch.float32
        assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = tokenizer.apply_chat_template([{"role": "user", "content": "w7"}], tokenize=False)
        assert text == "w3 w7 w1 "
        trained = weights_of(folder)
        assert set(trained) == set(base)
        assert not np.array_equal(trained["lm_head.weight"], base["lm_head.weight"])
    assert not np.array_equal(weights_of(world / "models/3")["lm_head.weight"], trained["lm_head.weight"])


RUN = """
import sys
from pathlib import Path
from tests import test_train_stage as t
world = Path(sys.argv[1])
config = t.training_config(world / "base", keep_steps=(3,))
t.run_stage(world, config, out=sys.argv[2], models=sys.argv[3])
"""


def kill_after(world, out, new_steps, attempt):
    """Run the stage in a process of its own and kill that when it has done so many steps."""
    events = out / ".events.jsonl"
    before = count_steps(events)
    command = [sys.executable, "-c", RUN, str(world), out.name, f"killed_models_{attempt}"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    tree: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while count_steps(events) < before + new_steps:
        assert process.poll() is None and time.monotonic() < deadline
        tree = psutil.Process(process.pid).children(recursive=True) or tree
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(tree, timeout=20)
    assert not alive, "a training process outlived its run"
    assert count_steps(events) < NUM_STEPS, "it was killed in the middle"


def count_steps(events):
    return events.read_bytes().count(b'"event":"step"') if events.exists() else 0


@pytest.mark.slow
def test_train_on_tokens_of_another_tokenizer_fails_with_the_ranks_own_words(world):
    store = write_tokens(world / "tokens", LENGTHS, vocabulary=5_000)
    write_plan(world / "plan", store, PACKS, packs_per_step=2)
    with pytest.raises(DataError, match="but the base model knows 61 tokens"):
        run_stage(world, training_config(world / "base"))


def test_train_keep_step_beyond_the_plan_is_refused_before_the_start(world):
    with pytest.raises(InputError, match=r"names \[46\] but the batch plan has 45 steps"):
        run_stage(world, training_config(world / "base", keep_steps=(2, 46)))


def test_train_ranks_that_do_not_divide_the_step_are_refused_before_the_start(world):
    config = training_config(world / "base")
    with publishing(KeptModels(world)), pytest.raises(InputError, match="allowed here: 1, 2"):
        train.function(config, inputs(world), world / "out", Runtime(scratch=world / "scratch", ranks=3))


def test_train_base_model_without_tokenizer_is_refused_before_the_start(world):
    for file in (world / "base").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match=r"lacks a tokenizer"):
        run_stage(world, training_config(world / "base"))


def test_checkpoint_missing_though_training_is_done_says_what_to_do(world):
    with pytest.raises(MissingArtifactError, match="delete the training's manifest and run again"):
        checkpoint.function(CheckpointConfig(step="final"), {"train": (world,)}, world / "out", runtime(world))
