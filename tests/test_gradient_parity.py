"""The heart of packed training: its gradient is that of the mean of per-sequence means.

DeepSpeed with two and four ranks, each with packs of its own or sharing them, over packs, accumulation
steps, an empty slot and a short last step, against plain transformers on one sequence at a time in float64.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import Optimizer
from longalign_core.supervise import supervised
from longalign_core.token_store import TokenStore
from longalign_core.training.deepspeed_config import deepspeed_config, num_data_ranks
from longalign_core.training.job import TrainingJob
from longalign_core.training.launch import launch_command, worker_environment
from tests.tiny_training import training_config, write_model, write_plan, write_tokens

pytestmark = pytest.mark.slow

LENGTHS = (7, 12, 30, 5, 9, 3, 21, 16, 2, 11, 8)
PACKS = (
    # two packs a rank, all slots filled
    (0, 1), (2,), (3, 4, 5), (6, 8),
    # an empty slot in the middle
    (7,), (), (9,), (1, 3),
    # the short last step: one sequence for two ranks and two accumulation steps
    (10,),
)  # fmt: skip
NUM_STEPS = 3


class Split(NamedTuple):
    """How a step of four packs is spread; four query heads, two key heads."""

    ranks: int
    sequence_parallel: int
    zero_stage: int
    tied: bool


SPLITS = (
    *(Split(2, 1, stage, tied) for stage in range(4) for tied in (False, True)),  # two packs a rank
    *(Split(2, 2, stage, False) for stage in range(4)),  # both ranks share all four packs
    *(Split(4, 2, stage, stage > 1) for stage in range(4)),  # two pairs of ranks
    Split(4, 4, 3, False),  # more ranks share a pack than there are key heads
    Split(4, 1, 2, False),  # a pack a rank, no accumulation
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Gradients of every step by split, from one start of DeepSpeed for each number of ranks."""
    root = tmp_path_factory.mktemp("gradients")
    store = write_tokens(root / "tokens", LENGTHS)
    write_plan(root / "plan", store, PACKS, packs_per_step=4)
    for tied in (False, True):
        write_model(root / f"model-{tied}", tied=tied)
    for ranks in (2, 4):
        compute(root, ranks, [write_job(root, split) for split in SPLITS if split.ranks == ranks])
    return root


def folder_of(root: Path, split: Split) -> Path:
    return root / "-".join(map(str, split))


def write_job(root: Path, split: Split) -> Path:
    """The split's job; the rank script also tries leaking attention where a pack is shared."""
    # A rate so small that no weight moves: every step's gradient is that of the base model.
    model = root / f"model-{split.tied}"
    config = training_config(model, optimizer=Optimizer(learning_rate=1e-30, clip_norm=1e9))
    runtime = Runtime(ranks=split.ranks, gpus=0, zero_stage=split.zero_stage, sequence_parallel=split.sequence_parallel)
    rendered = deepspeed_config(config, runtime, 4, num_data_ranks(runtime, 4))
    if split.zero_stage == 3:  # parameters this small would not be partitioned
        rendered["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    out_dir = folder_of(root, split)
    out_dir.mkdir()
    job = TrainingJob(
        plan=root / "plan",
        tokens=root / "tokens",
        base_model=model,
        out_dir=out_dir,
        config=config,
        keep_steps=(),
        checkpoint_interval=1,
        gradient_checkpointing=split.zero_stage == 2,
        deepspeed=rendered,
        sequence_parallel=split.sequence_parallel,
    )
    (out_dir / "job.json").write_text(job.model_dump_json())
    return out_dir / "job.json"


def compute(root: Path, ranks: int, jobs: list[Path]) -> None:
    command = launch_command(jobs[0], ranks)
    command = [*command[: command.index("--module") + 1], "tests.gradient_rank", *map(str, jobs)]
    environment = worker_environment(os.environ, ranks=ranks, on_gpu=False, extensions=root / "extensions")
    repository = Path(__file__).resolve().parent.parent
    with supervised(command, env=environment, log=root / f"log-{ranks}", cwd=repository) as process:
        try:
            code = process.wait(300)
        except subprocess.TimeoutExpired:
            code = None
    assert code == 0, (root / f"log-{ranks}").read_text()[-4000:]


@cache
def one_sequence_at_a_time(model_folder: Path, tokens: Path, sequences: tuple[int, ...]):
    """Loss and gradients of the mean of per-sequence means, by plain transformers in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    store = TokenStore.open(tokens)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float64, attn_implementation="eager")
    total = 0.0
    for sequence in sequences:
        ids, is_target = (torch.from_numpy(array) for array in store.sequence(sequence))
        logits = model(ids[None], use_cache=False).logits[0]
        losses = -torch.log_softmax(logits[:-1], dim=-1).gather(1, ids[1:, None])[:, 0]
        loss = losses[is_target[1:]].mean() / len(sequences)
        loss.backward()
        total += loss.item()
    return total, {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: "-".join(map(str, split)))
@pytest.mark.parametrize("step", range(NUM_STEPS), ids=["full", "empty-slot", "short-last"])
def test_step_gradient_of_any_split_equals_mean_of_sequence_means(runs, step, split):
    sequences = tuple(sequence for pack in PACKS[4 * step : 4 * step + 4] for sequence in pack)
    loss, expected = one_sequence_at_a_time(runs / f"model-{split.tied}", runs / "tokens", sequences)
    found = dict(np.load(folder_of(runs, split) / f"gradients-{step}.npz"))
    assert float(found.pop("loss")) == pytest.approx(loss, rel=1e-5)
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in expected.values()))
    assert float(found.pop("grad_norm")) == pytest.approx(norm, rel=1e-5)
    assert {name.removeprefix("model.") for name in found} == set(expected)
    assert ("lm_head.weight" in expected) is not split.tied
    errors = {
        name: np.linalg.norm(found["model." + name] - gradient) / np.linalg.norm(gradient)
        for name, gradient in expected.items()
    }
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("split", [split for split in SPLITS if split.sequence_parallel > 1], ids=str)
def test_check_before_training_refuses_shared_packs_whose_attention_sees_all_of_them(runs, split):
    assert "sequences see each other" in (folder_of(runs, split) / "leaking").read_text()
