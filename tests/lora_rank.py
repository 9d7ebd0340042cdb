"""One rank of the LoRA test: the product's trainer on each job, to its end, then again from its last resume point.

Started by DeepSpeed's launcher as `python -m tests.lora_rank JOB.json...`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

from longalign_core.training.job import RESUME_FOLDER, Resume, TrainingJob
from longalign_core.training.resume import find_point
from longalign_core.training.trainer import Trainer
from longalign_core.training.worker import start_communication


def main(job_files: list[str]) -> None:
    start_communication()
    for job_file in job_files:
        job = TrainingJob.model_validate_json(Path(job_file).read_bytes())
        Trainer(job).run()
        dist.barrier()
        point = find_point(job.out_dir / RESUME_FOLDER)
        assert point is not None
        resume = Resume(step=point.step, tag=point.tag)
        Trainer(job.model_copy(update={"resume": resume})).run()
        dist.barrier()


if __name__ == "__main__":
    main(sys.argv[1:])
