"""One training process: `python -m longalign_core.training.worker JOB.json`, started by DeepSpeed's launcher.

It is two: a small one that says how the other one ended, which a killed process cannot do itself.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from longalign_core.errors import InputError, LongAlignError
from longalign_core.supervise import die_with_parent
from longalign_core.training.job import TrainingJob
from longalign_core.training.rank_reports import report_failure, report_signal, report_started


def main(job_file: Path) -> int:
    """Train as the job says in a process of its own, and report it if a signal ends that. Returns its exit code."""
    job = TrainingJob.model_validate_json(job_file.read_bytes())
    rank = int(os.environ["RANK"])
    report_started(job.out_dir, rank)
    child = os.fork()
    if child == 0:
        die_with_parent(signal.SIGKILL)
        code = 1
        try:
            code = train(job, rank)
        finally:
            with suppress(OSError):  # the disk is full
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    # TERM goes to the whole tree, and is no cause of its own.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0 and -code not in (signal.SIGTERM, signal.SIGINT):
        report_signal(job.out_dir, rank, -code)
    return code if code >= 0 else 128 - code


def train(job: TrainingJob, rank: int) -> int:
    """Train as the job says. A failure is reported to the launching process. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if os.environ.get("DS_ACCELERATOR") == "cuda":
            check_gpu(int(os.environ["LOCAL_RANK"]))
        start_communication(job.communication_timeout_seconds)
        import torch.distributed as dist

        from longalign_core.training.trainer import Trainer

        Trainer(job).run()
        dist.destroy_process_group()
    except Exception as error:
        report_failure(job.out_dir, rank, error)
        if isinstance(error, LongAlignError):
            logging.getLogger(__name__).error("%s", error)
        else:
            logging.getLogger(__name__).exception("rank %d failed", rank)
        return 1
    return 0


def check_gpu(local_rank: int) -> None:
    """Refuse to start where this rank has no GPU.

    Raises:
        InputError: The machine has fewer GPUs than ranks.
    """
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local_rank >= found:
        raise InputError(
            f"LONGALIGN_GPUS is {os.environ['LOCAL_SIZE']} but this machine shows {found} GPUs to torch "
            f"{torch.__version__}; lower it, or install a build of torch for these GPUs"
        )


def start_communication(timeout_seconds: float = 600) -> None:
    """Join the other ranks: NCCL between GPUs, gloo without.

    DeepSpeed would compile a shared-memory helper here that only inference uses: a minute at the first
    start, and a lock that hangs every later one when that is killed.

    Args:
        timeout_seconds: So long a rank waits for another one to join, and to answer.
    """
    import deepspeed
    from torch.distributed import distributed_c10d

    timeout = timedelta(seconds=timeout_seconds)
    # Groups that DeepSpeed makes later take these defaults, half an hour for gloo, not the first group's.
    distributed_c10d.default_pg_timeout = timeout
    distributed_c10d.default_pg_nccl_timeout = timeout
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(timeout=timeout)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
