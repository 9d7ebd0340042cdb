"""One rank of the training benchmark: the product's trainer, kept to a core of its own, on a list of tasks.

Started by torch's launcher as `python -m benchmarks.training_rank TASKS.json`. A task is a kind and its values:
`compare` takes turns at several jobs and times their steps, `train` runs a job as the product's worker does,
`gradients` reads every step's gradient before the update.
"""

from __future__ import annotations

import json
import os
import statistics
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
from longalign_core.training.trainer import Trainer
from longalign_core.training.worker import start_communication


class SlotClock:
    """Processor seconds of this rank's slots: what it computes, without what it waits or sends.

    A slot lasts from the start of its forward pass to the start of the next one. Only this thread's seconds
    count: communication runs in threads of its own, and waiting takes none.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._starts: list[float] = []
        trainer.engine.module.register_forward_pre_hook(lambda *_: self._starts.append(time.thread_time()))

    def slots_since(self) -> list[float]:
        """Of the slots since the last call, the last of which ends now."""
        ends = [*self._starts[1:], time.thread_time()]
        seconds = [end - start for start, end in zip(self._starts, ends, strict=True)]
        self._starts.clear()
        return seconds


def compare(job_files: dict[str, str], turns: int, out_file: str) -> None:
    """Run every job's whole plan in turns; rank 0 writes what each turn of each took.

    Written per job: `seconds` of each turn, of which `accumulate_seconds` are forward and backward passes, and
    `slots`, the processor seconds of every slot in the plan's order, the median of the turns.
    """
    trainers = {name: Trainer(read_job(file)) for name, file in job_files.items()}
    clocks = {name: SlotClock(trainer) for name, trainer in trainers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    accumulating: dict[str, list[float]] = {name: [] for name in trainers}
    slots: dict[str, list[list[float]]] = {name: [] for name in trainers}
    for turn in range(turns + 1):
        for name in list(trainers)[:: -1 if turn % 2 else 1]:
            trainer, clock = trainers[name], clocks[name]
            num_steps = 1 if turn == 0 else trainer.plan.meta.num_steps  # turn 0 warms up
            of_slots: list[float] = []
            in_passes = 0.0
            dist.barrier()
            begun = time.perf_counter()
            for step in range(num_steps):
                started = time.perf_counter()
                loss = trainer.accumulate(step)
                of_slots += clock.slots_since()
                in_passes += time.perf_counter() - started
                trainer.update(step)
                dist.all_reduce(loss)
            dist.barrier()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
                accumulating[name].append(in_passes)
                slots[name].append(of_slots)
    found = {}
    for name in trainers:
        mine = [statistics.median(times) for times in zip(*slots[name], strict=True)]
        ranks: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, mine)
        # Rank r computes slots r, r + R, … of every step.
        in_order = np.array(ranks).T.ravel().tolist()
        found[name] = {"seconds": seconds[name], "accumulate_seconds": accumulating[name], "slots": in_order}
    if dist.get_rank() == 0:
        Path(out_file).write_text(json.dumps(found))


def train(job_file: str, out_file: str) -> None:
    """Train as the worker does, events, model and all; rank 0 writes what steps took and where the model is."""
    job = read_job(job_file)
    trainer = Trainer(job)
    begun = time.process_time()
    trainer.run()
    cpu_seconds = time.process_time() - begun
    if dist.get_rank() == 0:
        metrics = read_metrics(job.out_dir)
        # Saving the model counts among the processor seconds.
        steps = [{"seconds": step.seconds, "cpu_seconds": cpu_seconds / len(metrics)} for step in metrics]
        found = {
            "steps": steps,
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
                loss_of_step = np.array(float(loss) / trainer.plan.meta.packs_per_step)
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
