"""One training process: `python -m longalign_core.training.worker JOB.json`, started by DeepSpeed's launcher."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist

from longalign_core.errors import LongAlignError
from longalign_core.training.job import EVENTS_FILE, EventWriter, TrainingJob


def main(job_file: Path) -> None:
    """Train as the job says. A failure is told to the launching process before it is raised."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    job = TrainingJob.model_validate_json(job_file.read_bytes())
    try:
        start_communication()
        from longalign_core.training.trainer import Trainer

        Trainer(job).run()
    except LongAlignError as error:
        EventWriter(job.out_dir / EVENTS_FILE).failed(type(error).__name__, str(error))
        raise
    except torch.OutOfMemoryError as error:
        EventWriter(job.out_dir / EVENTS_FILE).failed("OutOfMemoryError", str(error).splitlines()[0])
        raise
    dist.destroy_process_group()


def start_communication() -> None:
    """Join the other ranks: NCCL between GPUs, gloo without.

    DeepSpeed would compile a shared-memory helper here that only inference uses: a minute at the first
    start, and a lock that hangs every later one when that is killed.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
