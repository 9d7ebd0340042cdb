"""The heart of packed training: its gradient is that of the mean of per-sequence means.

DeepSpeed with several ranks and accumulation steps, ranks that share packs among them, over packs, an empty slot and
a short last step, against plain transformers on one sequence at a time in float64.
"""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import Optimizer
from longalign_core.supervise import supervised
from longalign_core.training.deepspeed_config import deepspeed_config, num_data_ranks
from longalign_core.training.job import TrainingJob
from longalign_core.training.launch import launch_command, read_metrics, worker_environment
from tests.tiny_training import training_config, write_model, write_plan, write_tokens

pytestmark = pytest.mark.slow

LENGTHS = (7, 12, 30, 5, 9, 3, 21, 16, 2, 11, 8)
STEPS = {
    # packs_per_step: packs of each step; lengths are no multiples of the ranks that share them
    4: (((0, 1), (2,), (3, 4, 5), (6, 8)), ((7,), (), (9,), (1, 3)), ((10,),)),
    2: (((0, 1), (3, 4, 5)), ((), (9,)), ((10,),)),
}
STEP_NAMES = ("full", "empty-slot", "short-last")
# A rate so small that no weight moves: every step's gradient is that of the base model.
STILL = Optimizer(learning_rate=1e-30, clip_norm=1e9)
# Adam hides the scale of gradients unless epsilon is large; the norm is over this one in every step.
CLIPPED = Optimizer(
    learning_rate=1.0, schedule="constant", warmup_fraction=0.0, clip_norm=0.1, epsilon=1.0, weight_decay=0.0
)
MOVING = Optimizer(learning_rate=1e-2, clip_norm=1.0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way to compute the steps: ranks × ranks to a pack × slots of a step, ZeRO stage and tying."""

    ranks: int = 2
    shared: int = 1
    slots: int = 4
    zero: int = 2
    tied: bool = False
    optimizer: Optimizer = STILL

    def __str__(self) -> str:
        kind = {STILL: "", CLIPPED: "-clipped", MOVING: "-moving"}[self.optimizer]
        tied = "tied" if self.tied else "untied"
        return f"{self.ranks // self.shared}x{self.shared}-{self.slots}slots-zero{self.zero}-{tied}{kind}"


ZERO_STAGES = (0, 1, 2, 3)
GRADIENTS = [
    *(Case(zero=zero, tied=tied) for zero in ZERO_STAGES for tied in (False, True)),
    # Two ranks to a pack, 2 accumulation steps.
    *(Case(shared=2, slots=2, zero=zero, tied=zero % 2 == 0) for zero in ZERO_STAGES),
    # Two packs at a time by two ranks each, 1 and 2 accumulation steps.
    *(Case(ranks=4, shared=2, slots=2, zero=zero, tied=zero % 2 == 1) for zero in ZERO_STAGES),
    *(Case(ranks=4, shared=2, zero=zero, tied=zero == 3) for zero in (1, 3)),
    # A pack for each rank at a time, and all ranks to one: more than the model has key/value heads.
    Case(ranks=4),
    *(Case(ranks=4, shared=4, slots=2, zero=zero, tied=zero == 3) for zero in (0, 3)),
]
CLIPPINGS = [Case(ranks=4, shared=2, zero=zero, optimizer=CLIPPED) for zero in (0, 2, 3)]
RUNS = [Case(optimizer=MOVING), Case(shared=2, optimizer=MOVING)]
BY_STEP = [pytest.param(case, step, id=f"{case}-{STEP_NAMES[step]}") for case in GRADIENTS for step in range(3)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Model, tokens, plans, and what every case gives: one start of two ranks and one of four."""
    root = tmp_path_factory.mktemp("gradients")
    store = write_tokens(root / "tokens", LENGTHS)
    for slots, steps in STEPS.items():
        write_plan(root / f"plan-{slots}", store, [pack for step in steps for pack in step], packs_per_step=slots)
    for tied in (False, True):
        write_model(root / f"model-{tied}", tied=tied)
    for ranks in (2, 4):
        cases = [case for case in (*CLIPPINGS, *RUNS, *GRADIENTS) if case.ranks == ranks]
        start(root, ranks, [write_job(root, case) for case in cases])
    return root


def write_job(root: Path, case: Case) -> Path:
    """The product's job of a case."""
    model = root / f"model-{case.tied}"
    config = training_config(model, optimizer=case.optimizer)
    runtime = Runtime(ranks=case.ranks, gpus=0, zero_stage=case.zero, sequence_parallel=case.shared)
    rendered = deepspeed_config(config, runtime, case.slots, num_data_ranks(runtime, case.slots))
    if case.zero == 3:  # parameters this small would not be partitioned
        rendered["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    out_dir = root / str(case)
    out_dir.mkdir()
    job = TrainingJob(
        plan=root / f"plan-{case.slots}",
        tokens=root / "tokens",
        base_model=model,
        out_dir=out_dir,
        config=config,
        keep_steps=(3,) if case in RUNS else (),
        checkpoint_interval=10,
        gradient_checkpointing=case.zero == 2,
        deepspeed=rendered,
        sequence_parallel=case.shared,
    )
    (out_dir / "job.json").write_text(job.model_dump_json())
    return out_dir / "job.json"


def start(root: Path, ranks: int, jobs: list[Path]) -> None:
    """Carry out jobs in one group of ranks."""
    command = launch_command(jobs[0], ranks)
    command = [*command[: command.index("--module") + 1], "tests.gradient_rank", *map(str, jobs)]
    environment = worker_environment(os.environ, ranks=ranks, on_gpu=False, extensions=root / "extensions")
    repository = Path(__file__).resolve().parent.parent
    log = root / f"log-{ranks}"
    with supervised(command, env=environment, log=log, cwd=repository) as process:
        try:
            code = process.wait(300)
        except subprocess.TimeoutExpired:
            code = None
    assert code == 0, log.read_text()[-4000:]


@functools.cache
def one_sequence_at_a_time(root: Path, tied: bool, sequences: tuple[int, ...]):
    """Loss and gradients of the mean of per-sequence means, by plain transformers in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    from longalign_core.token_store import TokenStore

    store = TokenStore.open(root / "tokens")
    folder = root / f"model-{tied}"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    total = 0.0
    for sequence in sequences:
        ids, is_target = (torch.from_numpy(array) for array in store.sequence(sequence))
        logits = model(ids[None], use_cache=False).logits[0]
        losses = -torch.log_softmax(logits[:-1], dim=-1).gather(1, ids[1:, None])[:, 0]
        loss = losses[is_target[1:]].mean() / len(sequences)
        loss.backward()
        total += loss.item()
    return total, {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


def expected_of(root: Path, case: Case, step: int):
    sequences = tuple(sequence for pack in STEPS[case.slots][step] for sequence in pack)
    return one_sequence_at_a_time(root, case.tied, sequences)


def norm_of(gradients) -> float:
    return float(np.sqrt(sum(np.sum(gradient**2) for gradient in gradients.values())))


@pytest.mark.parametrize(("case", "step"), BY_STEP)
def test_step_gradient_by_any_ranks_equals_mean_of_sequence_means(root, case, step):
    loss, expected = expected_of(root, case, step)
    found = dict(np.load(root / str(case) / f"gradients-{step}.npz"))
    assert float(found.pop("loss")) == pytest.approx(loss, rel=1e-5)
    assert float(found.pop("grad_norm")) == pytest.approx(norm_of(expected), rel=1e-5)
    assert {name.removeprefix("model.") for name in found} == set(expected)
    assert ("lm_head.weight" in expected) is not case.tied
    errors = {
        name: np.linalg.norm(found["model." + name] - gradient) / np.linalg.norm(gradient)
        for name, gradient in expected.items()
    }
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("case", CLIPPINGS, ids=str)
def test_first_update_by_shared_packs_clips_by_the_norm_of_the_whole_gradient(root, case):
    import torch
    from transformers import AutoModelForCausalLM

    _, expected = expected_of(root, case, 0)
    factor = CLIPPED.clip_norm / norm_of(expected)
    assert factor < 0.5
    model = AutoModelForCausalLM.from_pretrained(root / "model-False", dtype=torch.float64)
    found = np.load(root / str(case) / "weights-0.npz")
    for name, parameter in model.named_parameters():
        # Adam's first update: both averages, their bias corrected, are the gradient and its square.
        gradient = factor * expected[name]
        wanted = -CLIPPED.learning_rate * gradient / (np.abs(gradient) + CLIPPED.epsilon)
        update = found["model." + name] - parameter.detach().numpy()
        assert np.linalg.norm(update - wanted) / np.linalg.norm(wanted) < 1e-4, name


def test_training_by_shared_packs_gives_the_metrics_of_packs_by_themselves(root):
    alone, shared = (read_metrics(root / str(case)) for case in RUNS)
    assert len(alone) == len(shared) == 3
    for own, other in zip(alone, shared, strict=True):
        for name in ("loss", "token_loss", "grad_norm", "tokens", "target_tokens", "num_sequences"):
            assert getattr(other, name) == pytest.approx(getattr(own, name), rel=1e-5), name
        assert other.bucket_losses[0] == pytest.approx(own.bucket_losses[0], rel=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rank", range(4))
def test_check_isolation_shared_packs_that_leak_are_refused_on_every_rank(root, checkpointing, rank):
    said = {
        name: (root / str(GRADIENTS[-1]) / f"{name}-{checkpointing}-{rank}").read_text()
        for name in ("right", "whole-pack", "own-part")
    }
    assert said["right"] == ""
    assert "sequences see each other" in said["whole-pack"]
    assert "packed logits differ from those of the sequences alone" in said["own-part"]
