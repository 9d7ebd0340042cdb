"""One rank of the gradient test: the product's trainer on each job, gradients read before the update.

Started by DeepSpeed's launcher as `python -m tests.gradient_rank JOB.json...`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

from longalign_core.training.job import TrainingJob
from longalign_core.training.trainer import Trainer
from longalign_core.training.worker import start_communication


def main(job_files: list[str]) -> None:
    start_communication()
    for job_file in job_files:
        job = TrainingJob.model_validate_json(Path(job_file).read_bytes())
        trainer = Trainer(job)
        for step in range(trainer.plan.meta.num_steps):
            loss = trainer.accumulate(step)
            dist.all_reduce(loss)
            # Under ZeRO-3 every rank takes part in gathering a gradient.
            grads = {
                name: safe_get_full_grad(parameter).detach().cpu().numpy().copy()
                for name, parameter in trainer.engine.module.named_parameters()
            }
            grads["grad_norm"] = np.array(trainer.update(step))
            if dist.get_rank() == 0:
                grads["loss"] = np.array(float(loss) / (trainer.plan.meta.packs_per_step * job.sequence_parallel))
                np.savez(job.out_dir / f"gradients-{step}.npz", **grads)
        dist.barrier()


if __name__ == "__main__":
    main(sys.argv[1:])
