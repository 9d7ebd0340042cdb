"""Runs training jobs on real ranks, any number of them, some killed: `python -m tests.resume_process SPEC.json`.

One process imports what takes seconds to import and forks the ranks of one job after the other. A
spec is a list of {"job": file, "ranks": number, "kill_at": step or null}: with the latter every rank
kills itself when it is about to update the weights in that step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path

from longalign_core.training.job import TrainingJob
from longalign_core.training.launch import free_port
from longalign_core.training.trainer import Trainer
from longalign_core.training.worker import start_communication


class KilledTrainer(Trainer):
    """One that gets SIGKILL in the middle of a step."""

    kill_at: int | None = None

    def update(self, step: int) -> float:
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(step)


def rank_process(job: TrainingJob, rank: int, ranks: int, port: int, kill_at: int | None) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        start_communication(120)
        trainer = KilledTrainer(job)
        trainer.kill_at = kill_at
        trainer.run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(spec_file: str) -> int:
    for one in json.loads(Path(spec_file).read_bytes()):
        job = TrainingJob.model_validate_json(Path(one["job"]).read_bytes())
        port, kill_at = free_port(), one["kill_at"]
        children = [rank_process(job, rank, one["ranks"], port, kill_at) for rank in range(one["ranks"])]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        # A rank may still be reading from another when that one is killed: then it fails before its own turn.
        as_meant = set(codes) == {0} if kill_at is None else -signal.SIGKILL in codes and 0 not in codes
        if not as_meant:
            print(f"{one}: ranks ended with {codes}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
