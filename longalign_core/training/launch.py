"""Start DeepSpeed on a job, follow it, and say clearly why it failed. Needs no torch in this process."""

from __future__ import annotations

import base64
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from longalign_core import errors
from longalign_core.errors import LongAlignError, TrainingError
from longalign_core.progress import track
from longalign_core.supervise import supervised
from longalign_core.training.job import EVENTS_FILE, EventReader, TrainingJob
from longalign_core.training.metrics import StepMetrics

LOG_FILE = ".train.log"
JOB_FILE = ".job.json"
_POLL_SECONDS = 0.2
_SIGKILL = 9


def run_job(
    job: TrainingJob,
    *,
    num_steps: int,
    ranks: int,
    on_gpu: bool,
    extensions: Path,
    on_model: Callable[[int], None],
    label: str = "train",
) -> None:
    """Train as the job says, to its end.

    Args:
        job: What to train.
        num_steps: Optimizer steps of the plan.
        ranks: Processes to start on this machine.
        on_gpu: Whether each gets a GPU.
        extensions: Folder of what DeepSpeed compiles.
        on_model: Called with the step of every model folder as soon as it is whole.
        label: What the progress is shown as.

    Raises:
        TrainingError: The processes ended without a model.
        LongAlignError: What a rank found wrong with its input.
    """
    job.out_dir.mkdir(parents=True, exist_ok=True)
    job_file = job.out_dir / JOB_FILE
    job_file.write_text(job.model_dump_json(indent=2), encoding="utf-8")
    log = job.out_dir / LOG_FILE
    log.unlink(missing_ok=True)
    remove_stale_locks(extensions)
    reader = EventReader(job.out_dir / EVENTS_FILE)
    list(reader.new())  # those of an earlier start
    failures: list[dict[str, Any]] = []
    environment = worker_environment(os.environ, ranks=ranks, on_gpu=on_gpu, extensions=extensions)
    with (
        track(label, total=num_steps, unit="steps") as progress,
        supervised(launch_command(job_file, ranks), env=environment, log=log) as process,
    ):
        done, running = 0, True
        while running:
            running = not _ended(process)
            for event in reader.new():
                if event["event"] == "step":
                    progress(event["step"] - done, note=step_note(event))
                    done = event["step"]
                elif event["event"] == "model":
                    on_model(event["step"])
                else:
                    failures.append(event)
    if process.returncode or failures:
        raise training_failure(process.returncode, failures, log.read_text(encoding="utf-8", errors="replace"))


def step_note(event: Mapping[str, Any]) -> str:
    """What is said of a step beside the progress."""
    idle = "" if event["idle_measured"] is None else f", idle {100 * event['idle_measured']:.0f} %"
    return f"loss {event['loss']:.4f}, {event['tokens'] / event['seconds']:,.0f} tokens/s{idle}"


def launch_command(job_file: Path, ranks: int) -> list[str]:
    """DeepSpeed's launcher of one machine, starting the worker on a port of its own.

    The `deepspeed` command would start this same launcher, three seconds later.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = base64.urlsafe_b64encode(orjson.dumps({"localhost": list(range(ranks))})).decode()
    launcher = [sys.executable, "-m", "deepspeed.launcher.launch", f"--world_info={world}", "--no_local_rank"]
    address = ["--master_addr=127.0.0.1", f"--master_port={port}"]
    return [*launcher, *address, "--module", "longalign_core.training.worker", str(job_file)]


def worker_environment(base: Mapping[str, str], *, ranks: int, on_gpu: bool, extensions: Path) -> dict[str, str]:
    """Environment of the training processes."""
    environment = dict(base)
    environment["TORCH_EXTENSIONS_DIR"] = str(extensions.resolve())
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    environment["HF_HUB_OFFLINE"] = "1"
    environment["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if not on_gpu:
        environment["DS_ACCELERATOR"] = "cpu"
        environment["CUDA_VISIBLE_DEVICES"] = ""
        if sys.platform == "linux":
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return environment


def remove_stale_locks(extensions: Path) -> None:
    """Remove the locks that a killed compilation left behind: every later start would wait for ever.

    A live lock of another run is removed too; the worst that follows is a second compilation.
    """
    for lock in extensions.glob("**/lock"):
        lock.unlink(missing_ok=True)


def read_metrics(out_dir: Path) -> list[StepMetrics]:
    """Metrics of every step in order; of a step done again after a kill, the last."""
    steps = {}
    for event in EventReader(out_dir / EVENTS_FILE).new():
        if event.pop("event") == "step":
            steps[event["step"]] = StepMetrics.of(event)
    return [steps[step] for step in sorted(steps)]


def training_failure(code: int, failures: list[dict[str, Any]], log: str) -> LongAlignError:
    """The error that says why training ended, from what the ranks told and what they wrote."""
    for failure in failures:
        kind, message = failure["kind"], failure["message"]
        if kind == "OutOfMemoryError":
            return TrainingError(
                f"a training process ran out of GPU memory ({message}); set "
                "LONGALIGN_GRADIENT_CHECKPOINTING=true or LONGALIGN_OFFLOAD=true, raise LONGALIGN_ZERO_STAGE or "
                "LONGALIGN_GPUS, or lower batching.capacity (extension.context_tokens in `extend`)"
            )
        error = getattr(errors, kind, TrainingError)
        return error(message)
    # DeepSpeed's launcher exits with a killed rank's negative code, seen from outside modulo 256.
    if code in (256 - _SIGKILL, 128 + _SIGKILL):
        return TrainingError(
            "a training process was killed (signal 9), most often for want of memory; lower LONGALIGN_RANKS or "
            "batching.capacity (extension.context_tokens in `extend`), or use a machine with more memory, then run "
            "again: where neither has changed, it goes on at its last resume point"
        )
    return TrainingError(f"training ended with exit code {code}: {log_cause(log)}")


def log_cause(log: str) -> str:
    """The last line of a log that names an error, else its last line; at most 300 characters."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(\[rank\d+\]: *)?[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (named or lines or ["the log is empty"])[-1][:300]


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
