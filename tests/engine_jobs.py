"""What the engines' tests have done in other processes, and programs that are killed while they do it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from longalign_core.corpora.reading import Unit
from longalign_core.corpora.shards import ShardJob, plan_shards, read_shard
from longalign_core.engine import LocalProcesses
from longalign_core.errors import DataError
from longalign_core.source_files import list_files
from tests.corpora_inputs import corpus

SHARD_BYTES, PART_CHARACTERS = 1 << 19, 1 << 17


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    if number == 2:
        raise DataError("the second cannot be used; change it")
    return number


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def write_pid_and_hang(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    while True:
        time.sleep(60)


def shard_jobs(location: Path, folder: Path) -> list[ShardJob]:
    """Shards and parts so small that a few megabytes have many."""
    config = corpus("json_lines", name="words", location=str(location))
    units = [Unit(file.relative_path, (file,)) for file in list_files(location).files]
    jobs = plan_shards(units, config, folder, shard_bytes=SHARD_BYTES)
    return [ShardJob(job.number, job.units, job.config, job.folder, PART_CHARACTERS) for job in jobs]


if __name__ == "__main__":
    what, *places = sys.argv[1:]
    if what == "shards":
        jobs = shard_jobs(*map(Path, places))
        for _ in LocalProcesses(2).run(read_shard, jobs, label="ingest words", look=lambda: None):
            pass
    else:
        folders = [Path(places[0])] * 2
        for _ in LocalProcesses(2).run(write_pid_and_hang, folders, label="hang", look=lambda: None):
            pass
