"""One rank of the training benchmark: the product's trainer, kept to a core of its own, on a list of tasks.

Started by torch's launcher as `python -m benchmarks.training_rank TASKS.json`. A task is a kind and its values:
`compare` takes turns at several jobs and times their steps, `train` runs a job as the product's worker does,
`gradients` reads every step's gradient before the update.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.measuring import keep_to_core
from longalign_core.training.job import TrainingJob
from longalign_core.training.launch import read_metrics
from longalign_core.training.metrics import StepMetrics, run_figures
from longalign_core.training.trainer import Trainer
from longalign_core.training.worker import start_communication


def compare(job_files: dict[str, str], turns: int, out_file: str) -> None:
    """Run every job from its start in turns; rank 0 writes what its steps took, as the product measured them.

    Written per job, for each turn: `seconds`, `idle_measured`, `idle_predicted`, and `slots`, the seconds of every
    slot in the plan's order: what the processor computed, without what ranks waited or sent.
    """
    jobs = {name: read_job(file) for name, file in job_files.items()}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    run_turn(list(jobs.values())[-1], "warm-up")
    for turn in range(turns):
        for name in list(jobs)[:: -1 if turn % 2 else 1]:
            steps = run_turn(jobs[name], f"turn-{turn}")
            found[name].append(
                {
                    **run_figures(steps),
                    "seconds": sum(step.seconds for step in steps),
                    "slots": [seconds for step in steps for seconds in step.slot_seconds],
                }
            )
    if dist.get_rank() == 0:
        Path(out_file).write_text(json.dumps(found))


def run_turn(job: TrainingJob, name: str) -> list[StepMetrics]:
    """Train without saving anything; returns what steps did."""
    own = job.model_copy(update={"out_dir": job.out_dir / name, "keep_steps": ()})
    Trainer(own).run()
    dist.barrier()
    return read_metrics(own.out_dir)


def train(job_file: str, out_file: str) -> None:
    """Train as the worker does, events, model and all; rank 0 writes what steps took and where the model is."""
    job = read_job(job_file)
    trainer = Trainer(job)
    begun = time.process_time()
    trainer.run()
    cpu_seconds = time.process_time() - begun
    if dist.get_rank() == 0:
        metrics = read_metrics(job.out_dir)
        found = {
            "seconds": [step.seconds for step in metrics],
            "cpu_seconds": cpu_seconds,  # saving the model included
            "losses": [step.loss for step in metrics],
            "packs": sum(1 for step in range(len(metrics)) for slot in trainer.plan.slots(step) if slot),
            "model": str(job.model_folder(len(metrics))),
        }
        Path(out_file).write_text(json.dumps(found))


def gradients(job_files: list[str]) -> None:
    """Loss and gradient of every step of every job, to `gradients-STEP.npz` beside the job."""
    from deepspeed.utils import safe_get_full_grad

    for job_file in job_files:
        job = read_job(job_file)
        trainer = Trainer(job)
        for step in range(trainer.plan.meta.num_steps):
            loss = trainer.accumulate(step)
            dist.all_reduce(loss)
            # Under ZeRO-3 every rank takes part in gathering a gradient.
            found = {
                name.removeprefix("model."): safe_get_full_grad(parameter).detach().cpu().numpy().copy()
                for name, parameter in trainer.engine.module.named_parameters()
            }
            trainer.update(step)
            if dist.get_rank() == 0:
                loss_of_step = np.array(float(loss) / (trainer.plan.meta.packs_per_step * job.sequence_parallel))
                np.savez(job.out_dir / f"gradients-{step}.npz", loss=loss_of_step, **found)
        dist.barrier()


def read_job(file: str) -> TrainingJob:
    """A job as the product writes it."""
    return TrainingJob.model_validate_json(Path(file).read_bytes())


TASKS = {"compare": compare, "train": train, "gradients": gradients}


def main(tasks_file: str) -> None:
    """Do the tasks one after the other, in one process group."""
    keep_to_core(int(os.environ["LOCAL_RANK"]))
    torch.set_num_threads(1)
    start_communication()
    for task in json.loads(Path(tasks_file).read_text()):
        TASKS[task.pop("kind")](**task)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
