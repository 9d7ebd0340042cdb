"""One rank of the LoRA test: the product's trainer on each job, to its end, then again from its last resume point.

Started by DeepSpeed's launcher as `python -m tests.lora_rank JOB.json...`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

from longalign_core.training.job import TrainingJob
from longalign_core.training.trainer import Trainer
from longalign_core.training.worker import start_communication


def main(job_files: list[str]) -> None:
    start_communication()
    for job_file in job_files:
        job = TrainingJob.model_validate_json(Path(job_file).read_bytes())
        for _ in range(2):
            Trainer(job).run()
            dist.barrier()


if __name__ == "__main__":
    main(sys.argv[1:])
