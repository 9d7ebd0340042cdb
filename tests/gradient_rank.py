"""One rank of the gradient tests: the product's trainer on each job, gradients read before the update.

Started by DeepSpeed's launcher as `python -m tests.gradient_rank JOB.json...`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad

from longalign_core.errors import TrainingError
from longalign_core.training.attention import packed_attention, register_packed_attention
from longalign_core.training.isolation import check_isolation
from longalign_core.training.job import TrainingJob
from longalign_core.training.layout import RankLayout
from longalign_core.training.model import load_model
from longalign_core.training.shared_attention import shared_attention
from longalign_core.training.trainer import Trainer
from longalign_core.training.worker import start_communication


def main(job_files: list[str]) -> None:
    start_communication()
    jobs = [TrainingJob.model_validate_json(Path(job_file).read_bytes()) for job_file in job_files]
    for job in jobs:
        if job.keep_steps:
            Trainer(job).run()
        else:
            write_gradients(job)
        dist.barrier()
    if jobs[-1].sequence_parallel > 1:
        write_refusals(jobs[-1])


def write_gradients(job: TrainingJob) -> None:
    """Loss, norm and gradients of every step, and the weights after it."""
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
        weights = {
            name: (parameter if job.zero_stage == 0 else safe_get_full_fp32_param(parameter)).detach().numpy().copy()
            for name, parameter in trainer.engine.module.named_parameters()
        }
        if dist.get_rank() == 0:
            np.savez(job.out_dir / f"weights-{step}.npz", **weights)


def write_refusals(job: TrainingJob) -> None:
    """What the start-up check says of attention over shared packs, right and leaking."""
    layout = RankLayout(rank=dist.get_rank(), num_ranks=dist.get_world_size(), sequence_parallel=job.sequence_parallel)
    group = layout.join_group()
    right = shared_attention(group)

    def whole_pack(module, query, key, value, mask, *, position_ids, **features):
        # Positions that never restart: the core was not told of the sequences.
        part = position_ids.shape[1]
        on_and_on = torch.arange(part)[None] + part * layout.sequence_rank
        return right(module, query, key, value, mask, position_ids=on_and_on, **features)

    # The rank's own part alone: nothing is exchanged.
    kinds = {"right": right, "whole-pack": whole_pack, "own-part": packed_attention}
    for checkpointing in (False, True):
        model = load_model(
            job.base_model, precision="fp32", trust_remote_code=False, gradient_checkpointing=checkpointing
        )
        for name, attention in kinds.items():
            register_packed_attention(attention)
            said = ""
            try:
                check_isolation(model, torch.device("cpu"), group)
            except TrainingError as error:
                said = str(error)
            (job.out_dir / f"{name}-{checkpointing}-{layout.rank}").write_text(said)


if __name__ == "__main__":
    main(sys.argv[1:])
