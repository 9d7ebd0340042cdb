"""What a start goes on from: the newest whole resume point, converted where the ranks differ. Needs no torch."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError, TrainingError
from longalign_core.supervise import supervised
from longalign_core.training.deepspeed_config import ranks_per_node
from longalign_core.training.job import RESUME_FOLDER, Resume, TrainingJob
from longalign_core.training.launch import worker_environment
from longalign_core.training.rank_logs import tail
from longalign_core.training.resume import Partition, ResumePoint, find_point, list_points

log = logging.getLogger(__name__)

_MODULE = "longalign_core.training.universal"
_LOG_FILE = ".universal.log"
_QUOTED_LINES = 5


def partition_of(job: TrainingJob, runtime: Runtime) -> Partition:
    """What the job's state is divided by."""
    ranks = runtime.nodes * ranks_per_node(runtime)
    return Partition(ranks=ranks, zero_stage=job.zero_stage, on_nvme=job.on_nvme)


def go_on(job: TrainingJob, runtime: Runtime) -> TrainingJob:
    """The job from where an earlier start left it; from the base model where none made a resume point.

    Every file of the point is digested here, before any process unpickles it.

    Raises:
        InputError: These ranks cannot go on from it.
        TrainingError: There are points, but each is damaged; or the conversion failed.
    """
    root = job.out_dir / RESUME_FOLDER
    point = find_point(root)
    if point is None:
        if damaged := list_points(root):
            raise TrainingError(
                f"each resume point of this training is damaged ({', '.join(path.parent.name for path in damaged)} in "
                f"{root}); bring one back, or delete that folder to start over from the base model"
            )
        return job
    partition = partition_of(job, runtime)
    if point.loads_under(partition):
        log.info("training goes on after step %d", point.step)
        return job.model_copy(update={"resume": Resume(step=point.step, tag=point.tag)})
    if not point.converts_to(partition):
        raise InputError(
            f"this training stopped after step {point.step} on {point.partition} and cannot go on on {partition}: "
            "DeepSpeed converts only within ZeRO-1 and 2 and within ZeRO-3, not from or to NVMe disks; set "
            f"LONGALIGN_ZERO_STAGE, offloading and ranks as they were, or delete {root} to start over"
        )
    log.info(
        "training goes on after step %d; its state on %s is converted for %s", point.step, point.partition, partition
    )
    tag = _converted(root, point, runtime, job.out_dir / _LOG_FILE)
    return job.model_copy(update={"resume": Resume(step=point.step, tag=tag, universal=True)})


def _converted(root: Path, point: ResumePoint, runtime: Runtime, log_file: Path) -> str:
    """Tag of the point's universal checkpoint. It is made anew at each start: none is ever half-written."""
    tag = f"universal-{point.tag}"
    extensions = runtime.scratch / "torch_extensions"
    environment = worker_environment(os.environ, ranks=1, on_gpu=False, extensions=extensions)
    log_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", _MODULE, str(root / point.tag), str(root / tag)]
    with supervised(command, env=environment, log=log_file) as process:
        code = process.wait()
    if code:
        free = shutil.disk_usage(root).free
        raise TrainingError(
            f"the resume point after step {point.step} could not be converted from {point.partition}, "
            f"{free / 1e9:.3g} GB are free in {root}: {' / '.join(tail(log_file, _QUOTED_LINES))}; go on with the "
            "ranks it was made on, or free space (it needs twice the point's) and run again; nothing is lost"
        )
    return tag
