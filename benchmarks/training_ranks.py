"""Jobs of the product's trainer, and processes of ranks that carry them out, each on a core of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import Optimizer, TrainingConfig
from longalign_core.supervise import supervised
from longalign_core.training.preparation import prepare_job

RANKS = 2
ZERO_STAGE = 2
"""Under it ranks meet after every micro-step, as under the paper's ZeRO-3."""
_SECONDS = 1800


class RanksError(RuntimeError):
    """Ranks failed, and what they said."""


def write_job(
    folder: Path,
    *,
    plan: Path,
    tokens: Path,
    model: Path,
    ranks: int,
    zero_stage: int,
    learning_rate: float,
    sequence_parallel: int = 1,
    slot_costs: Path | None = None,
) -> Path:
    """A job as the product's `train` prepares it, in fp32 with a constant learning rate; returns its file."""
    optimizer = Optimizer(learning_rate=learning_rate, schedule="constant", warmup_fraction=0.0)
    config = TrainingConfig(base_model=str(model), precision="fp32", optimizer=optimizer)
    runtime = Runtime(
        ranks=ranks,
        gpus=0,
        zero_stage=zero_stage,
        sequence_parallel=sequence_parallel,
        checkpoint_interval=1_000_000,
        trackers=(),
    )
    folder.mkdir(parents=True)
    job = prepare_job(
        config,
        runtime,
        name="benchmark",
        plan=plan,
        slot_costs=slot_costs,
        tokens=tokens,
        base_model=model,
        out_dir=folder,
    )
    if zero_stage == 3:
        # Parameters this small would not be partitioned.
        zero = {**job.deepspeed["zero_optimization"], "stage3_param_persistence_threshold": 0}
        job = job.model_copy(update={"deepspeed": {**job.deepspeed, "zero_optimization": zero}})
    file = folder / "job.json"
    file.write_text(job.model_dump_json())
    return file


def run_tasks(tasks: Sequence[dict[str, Any]], *, ranks: int, folder: Path) -> None:
    """Carry out tasks of `training_rank` in one group of ranks."""
    run_ranks("benchmarks.training_rank", list(tasks), ranks=ranks, folder=folder)


def run_ranks(module: str, values: Any, *, ranks: int, folder: Path) -> None:
    """Start a module's ranks by torch's launcher with a file of values, and wait for their end.

    Raises:
        RanksError: They failed or took over half an hour.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "values.json", folder / "log"
    file.write_text(json.dumps(values))
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, "-m", *launcher, "-m", module, str(file)]
    environment = {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
    }
    repository = Path(__file__).resolve().parent.parent
    with supervised(command, env=environment, log=log, cwd=repository) as process:
        try:
            code = process.wait(_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise RanksError(f"{module} took over {_SECONDS} s") from error
    if code:
        raise RanksError(f"{module} failed:\n{log.read_text(errors='replace')[-3000:]}")
