"""One rank of the gradient test: the product's trainer on each job, gradients read before the update.

Started by DeepSpeed's launcher as `python -m tests.gradient_rank JOB.json...`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad

from longalign_core.errors import TrainingError
from longalign_core.training.attention import register_packed_attention
from longalign_core.training.isolation import check_isolation
from longalign_core.training.job import TrainingJob
from longalign_core.training.layout import RankLayout
from longalign_core.training.model import load_model
from longalign_core.training.shared_attention import shared_attention
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
        if job.sequence_parallel > 1:
            refusal = refusal_of_leaking_attention(job)
            if dist.get_rank() == 0:
                (job.out_dir / "leaking").write_text(refusal)
        dist.barrier()


def refusal_of_leaking_attention(job: TrainingJob) -> str:
    """What the check says of attention that takes the whole pack for one sequence, as the plain exchange does."""
    layout = RankLayout(rank=dist.get_rank(), num_ranks=dist.get_world_size(), sequence_parallel=job.sequence_parallel)
    group = layout.join_group()
    right = shared_attention(group)

    def leaking(module, query, key, value, mask, *, position_ids, **options):
        part = position_ids.shape[1]
        on_and_on = torch.arange(part)[None] + part * layout.sequence_rank
        return right(module, query, key, value, mask, position_ids=on_and_on, **options)

    model = load_model(job.base_model, precision="fp32", trust_remote_code=False, gradient_checkpointing=False)
    register_packed_attention(leaking)
    try:
        check_isolation(model, torch.device("cpu"), group)
    except TrainingError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(sys.argv[1:])
