"""The stage `train`: models out of a batch plan, and the same ones after a kill."""

from __future__ import annotations

import os
import shutil
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
from pydantic import ValidationError

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import CheckpointConfig, Optimizer
from longalign_core.errors import DataError, InputError, MissingArtifactError, TrainingError
from longalign_core.stage import Artifact, publishing
from longalign_core.stages.training import checkpoint, train
from longalign_core.supervise import supervised
from longalign_core.training.base_model import check_vocabulary
from longalign_core.training.deepspeed_config import deepspeed_config
from longalign_core.training.failure import training_failure
from longalign_core.training.job import EVENTS_FILE, MODELS_FOLDER, RESUME_FOLDER, EventReader, TrainingJob
from longalign_core.training.launch import launch_command, read_metrics, worker_environment
from longalign_core.training.rank_reports import read_failures
from longalign_core.training.resume import resume_tag
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
        assert stage.name == "checkpoint" and str(config.step) == label
        self.labels.append(label)
        shutil.copytree(folder, self.folder / label)
        return Artifact(stage=stage.name, key=f"{len(self.labels):016x}", label=label, done=True)

    def ancestors(self):
        return []


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
    return Runtime(scratch=world / "scratch", **({"gpus": 0, "ranks": 2, "checkpoint_interval": 4} | changes))


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
        "cost_profile.jsonl",
        "deepspeed.json",
        "metrics.jsonl",
        "metrics.parquet",
        "report.html",
        "tensorboard",
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

    # The same run, its whole process killed after some steps, then finished.
    killed = world / "killed"
    killed.mkdir()
    kill_after(world, killed, 10)
    counts_again, publisher_again = run_stage(world, config, out="killed", models="models_again")
    for name in ("steps", "tokens", "sequences", "first_loss", "last_loss", "idle_predicted", "checkpoints"):
        assert counts_again[name] == counts[name], name
    again = pq.read_table(killed / "metrics.parquet").to_pydict()
    for name in (
        "step",
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens",
        "num_sequences",
        "token_loss",
        "bucket_losses",
    ):
        assert again[name] == metrics[name], name
    for tracked in (tensorboard_losses(killed), json_line_losses(killed)):
        assert [step for step, _ in tracked] == metrics["step"], "no step is there twice, or missing"
        assert [loss for _, loss in tracked] == pytest.approx(metrics["loss"], rel=1e-6)
    assert publisher_again.labels[-1] == "final"
    final, final_again = (weights_of(world / folder / "final") for folder in ("models", "models_again"))
    assert all(np.array_equal(final[name], final_again[name]) for name in final)
    steps = [orjson.loads(line) for line in (killed / ".events.jsonl").read_bytes().splitlines()]
    done_again = sum(event["event"] == "step" for event in steps) - NUM_STEPS
    assert done_again < 10, "it went on from a resume point"


def tensorboard_losses(out_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(out_dir / "tensorboard"))
    curves.Reload()
    return [(event.step, event.value) for event in curves.Scalars("loss")]


def json_line_losses(out_dir):
    rows = [orjson.loads(line) for line in (out_dir / "metrics.jsonl").read_bytes().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


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


def kill_after(world, out, num_steps):
    """Run the stage in a process of its own and kill that when it has done so many steps."""
    events = out / ".events.jsonl"
    command = [sys.executable, "-c", RUN, str(world), out.name, "killed_models"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    tree: list[psutil.Process] = []
    deadline = time.monotonic() + 120
    while count_steps(events) < num_steps:
        assert process.poll() is None and time.monotonic() < deadline
        tree = psutil.Process(process.pid).children(recursive=True) or tree
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(tree, timeout=20)
    assert not alive, "a training process outlived its run"
    assert count_steps(events) < NUM_STEPS, "it was killed in the middle"


def read_steps(out_dir):
    return [event for event in EventReader(out_dir / EVENTS_FILE).new() if event["event"] == "step"]


def count_steps(events):
    return events.read_bytes().count(b'"event":"step"') if events.exists() else 0


def command_of(process):
    """Its command line; empty for one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def workers_of(processes):
    """Those that train, without the launcher that started them."""
    lines = [(process, command_of(process)) for process in processes]
    return [one for one, line in lines if "longalign_core.training.worker" in line and "--module" not in line]


class RankKiller(KeptModels):
    """Kills one training process as soon as the first model comes."""

    def publish(self, stage, config, label, folder, counts):
        workers = workers_of(psutil.Process().children(recursive=True))
        max(workers, key=lambda process: process.create_time()).kill()
        return super().publish(stage, config, label, folder, counts)


@pytest.mark.slow
def test_train_zero_3_bf16_with_a_killed_rank_says_so_and_finishes_when_run_again(world):
    store = write_tokens(world / "tokens", LENGTHS)
    last = write_plan(world / "plan", store, PACKS, packs_per_step=2, epochs=5).meta.num_steps
    config = training_config(world / "base", keep_steps=(3, last), precision="bf16")
    changes = {"zero_stage": 3, "checkpoint_interval": 1}
    with publishing(RankKiller(world / "first")), pytest.raises(TrainingError, match=r"was killed \(signal 9\)"):
        train.function(config, inputs(world), world / "out", runtime(world, **changes))
    first = read_steps(world / "out")
    # The last resume point is lost too, so that a step done before the kill is done again.
    point, lost = sorted((world / "out" / RESUME_FOLDER).glob("*/resume.json"))[-2:]
    resumed = orjson.loads(point.read_bytes())["step"]
    shutil.rmtree(lost.parent)
    counts, publisher = run_stage(world, config, gradient_checkpointing=True, **changes)
    gone_on = read_steps(world / "out")[len(first) :]
    assert [event["step"] for event in gone_on] == list(range(resumed + 1, last + 1))
    for again in gone_on[: len(first) - resumed]:
        before = first[again["step"] - 1]
        assert (again["loss"], again["grad_norm"]) == pytest.approx((before["loss"], before["grad_norm"]), rel=1e-6)
    assert publisher.labels == [str(last), "final"], "the first one was published before the kill"
    assert [one["step"] for one in orjson.loads((world / "out" / "checkpoints.json").read_bytes())] == [
        3,
        last,
        "final",
    ]
    assert counts["last_loss"] < counts["first_loss"]
    from transformers import AutoModelForCausalLM

    final = AutoModelForCausalLM.from_pretrained(world / "models" / "final")
    early = AutoModelForCausalLM.from_pretrained(world / "first" / "3")
    assert str(final.dtype) == str(early.dtype) == "torch.bfloat16"
    assert final.lm_head.weight.shape == (61, 32)
    assert not final.lm_head.weight.equal(early.lm_head.weight)


@pytest.mark.slow
@pytest.mark.parametrize(("zero_stage", "precision"), [(0, "fp32"), (2, "bf16")])
def test_train_that_diverges_names_the_step_and_keeps_nothing_of_it(world, zero_stage, precision):
    # The first update makes weights so large that the attention scores of the second step overflow.
    optimizer = Optimizer(learning_rate=1e15, schedule="constant", warmup_fraction=0)
    config = training_config(world / "base", optimizer=optimizer, precision=precision, keep_steps=(2,))
    publisher = KeptModels(world / "models")
    with (
        publishing(publisher),
        pytest.raises(TrainingError, match=r"diverged: step 2 has .*nan.* lower .*learning_rate"),
    ):
        train.function(
            config, inputs(world), world / "out", runtime(world, zero_stage=zero_stage, checkpoint_interval=1)
        )
    (done,) = read_metrics(world / "out")
    assert done.step == 1 and np.isfinite(done.loss) and done.grad_norm > 0
    assert [path.name for path in (world / "out" / RESUME_FOLDER).glob("step-*")] == [resume_tag(1)]
    assert publisher.labels == [] and not (world / "out" / MODELS_FOLDER).exists()


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_optimizer_number_that_is_not_finite_is_refused(number):
    with pytest.raises(ValidationError, match="finite number"):
        Optimizer(learning_rate=number)


@pytest.mark.slow
def test_worker_on_tokens_of_another_tokenizer_tells_why_it_fails(world):
    store = write_tokens(world / "tokens", LENGTHS, vocabulary=5_000)
    write_plan(world / "plan", store, PACKS, packs_per_step=2)
    config = training_config(world / "base")
    job = TrainingJob(
        plan=world / "plan",
        tokens=world / "tokens",
        base_model=world / "base",
        out_dir=world / "out",
        config=config,
        keep_steps=(3,),
        checkpoint_interval=2,
        gradient_checkpointing=False,
        deepspeed=deepspeed_config(config, runtime(world), 2, 1),
    )
    (world / "job.json").write_text(job.model_dump_json())
    command = launch_command(world / "job.json", 1)
    environment = worker_environment(os.environ, ranks=1, on_gpu=False, extensions=world / "extensions")
    with supervised(command, env=environment, log=world / "log", cwd=REPOSITORY) as process:
        assert process.wait(120) == 1
    error = training_failure(1, read_failures(world / "out"), "")
    assert type(error) is DataError
    assert "but the base model knows 61 tokens" in str(error)


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


def test_train_tokens_of_another_tokenizer_are_refused_before_the_start(world):
    store = write_tokens(world / "tokens", LENGTHS, vocabulary=5_000)
    largest = max(int(store.sequence(index)[0].max()) for index in range(store.num_sequences))
    with pytest.raises(InputError, match=rf"token id {largest} but .* knows ids up to 60 .* encoding\.tokenizer"):
        run_stage(world, training_config(world / "base"))
    assert not (world / "out" / "deepspeed.json").exists()


def test_train_tokens_up_to_the_last_of_the_vocabulary_are_let_through(world):
    store = write_tokens(world / "tokens", (200,))
    assert store.largest_token_id == 60
    check_vocabulary(world / "base", world / "tokens")


def test_checkpoint_missing_though_training_is_done_says_what_to_do(world):
    with pytest.raises(MissingArtifactError, match="delete the training's manifest and run again"):
        checkpoint.function(CheckpointConfig(step="final"), {"train": (world,)}, world / "out", runtime(world))
