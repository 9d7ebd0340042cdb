"""Start DeepSpeed on a job, follow it, and say clearly why it failed. Needs no torch in this process."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError, TrainingError
from longalign_core.progress import track
from longalign_core.supervise import GRACE_SECONDS, supervised
from longalign_core.training.deepspeed_config import ranks_per_node
from longalign_core.training.failure import training_failure
from longalign_core.training.job import EVENTS_FILE, EventReader, TrainingJob
from longalign_core.training.launchers import check_launcher, nodes_command, shared_environment
from longalign_core.training.metrics import StepMetrics
from longalign_core.training.rank_logs import LogRelay, rank_log, start_logs, tail
from longalign_core.training.rank_reports import clear_reports, missing_ranks, read_failures
from longalign_core.training.start import SILENCE_SECONDS, START_FILE, Start, heartbeat

log = logging.getLogger(__name__)

LOG_FILE = ".train.log"
JOB_FILE = ".job.json"
WORKER = "longalign_core.training.worker"
_STARTS_FOLDER = ".start"
_POLL_SECONDS = 0.2
# Ranks that see another one fail say so a moment after it.
_LAST_WORDS_SECONDS = 3.0
_QUOTED_LINES = 20
_NODES_END_SECONDS = SILENCE_SECONDS + 2 * GRACE_SECONDS


def run_job(
    job: TrainingJob,
    runtime: Runtime,
    *,
    num_steps: int,
    on_model: Callable[[int], None],
    on_point: Callable[[int], None],
    watch: Callable[[], None] = lambda: None,
    label: str = "train",
) -> None:
    """Train as the job says, to its end.

    Args:
        job: What to train.
        runtime: Who starts it, where, and how long ranks wait.
        num_steps: Optimizer steps of the plan.
        on_model: Called with the step of every model folder as soon as it is whole.
        on_point: Called with the step of every resume point as soon as it is whole.
        watch: Called several times a second; what it raises ends the training.
        label: What the progress is shown as.

    Raises:
        InputError: The runtime's launcher cannot start it.
        TrainingError: The processes ended without a model.
        LongAlignError: What a rank found wrong with its input.
    """
    job.out_dir.mkdir(parents=True, exist_ok=True)
    job_file = job.out_dir / JOB_FILE
    job_file.write_text(job.model_dump_json(indent=2), encoding="utf-8")
    launcher_log = job.out_dir / LOG_FILE
    launcher_log.unlink(missing_ok=True)
    clear_reports(job.out_dir)
    logs = start_logs(job.out_dir)
    reader = EventReader(job.out_dir / EVENTS_FILE)
    list(reader.new())  # those of an earlier start
    relay = LogRelay(logs)
    with (
        track(label, total=num_steps, unit="steps") as progress,
        _started(job_file, runtime, logs, launcher_log) as (process, failed_nodes),
    ):
        done, running = 0, True
        since_step = time.monotonic()
        while running:
            running = not (_ended(process) or failed_nodes() or read_failures(job.out_dir))
            for event in reader.new():
                if event["event"] == "step":
                    progress(event["step"] - done, note=step_note(event))
                    done = event["step"]
                elif event["event"] == "model":
                    on_model(event["step"])
                elif event["event"] == "point":
                    on_point(event["step"])
                since_step = time.monotonic()
            relay.relay()
            watch()
            if runtime.stall_seconds is not None and time.monotonic() - since_step > runtime.stall_seconds:
                raise _stalled(done, runtime.stall_seconds, logs)
        if process.poll() is None:
            _hear_last_words(process)
        failures = read_failures(job.out_dir)
    if process.returncode or failures:
        for failure in failures:
            _quote(logs, failure.rank)
        raise training_failure(
            process.returncode,
            failures,
            launcher_log.read_text(encoding="utf-8", errors="replace"),
            missing=missing_ranks(job.out_dir, runtime.nodes * ranks_per_node(runtime)),
            logs=logs,
            timeout_seconds=runtime.communication_timeout_seconds,
        )


def step_note(event: Mapping[str, Any]) -> str:
    """What is said of a step beside the progress."""
    idle = "" if event["idle_measured"] is None else f", idle {100 * event['idle_measured']:.0f} %"
    return f"loss {event['loss']:.4f}, {event['tokens'] / event['seconds']:,.0f} tokens/s{idle}"


Started = tuple[subprocess.Popen[bytes], Callable[[], bool]]


@contextmanager
def _started(job_file: Path, runtime: Runtime, logs: Path, launcher_log: Path) -> Iterator[Started]:
    """All ranks for as long as the block lasts: the launcher's process, and whether a machine's ranks failed."""
    extensions = runtime.scratch / "torch_extensions"
    hosts = check_launcher(runtime)
    if runtime.launcher == "local":
        remove_stale_locks(extensions)
        environment = worker_environment(
            os.environ, ranks=ranks_per_node(runtime), on_gpu=runtime.gpus > 0, extensions=extensions
        )
        master = (runtime.master_address or "127.0.0.1", runtime.master_port or free_port())
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "") if runtime.gpus else ""
        command = launch_command(job_file, ranks_per_node(runtime), master=master, logs=logs, visible_gpus=visible)
        with supervised(command, env=environment, log=launcher_log) as process:
            yield process, lambda: False
        return
    start = _new_start(job_file, runtime, logs)
    command = nodes_command(runtime, hosts, start.write(), start.working_folder)
    with heartbeat(start.folder) as end, supervised(command, env=os.environ, log=launcher_log) as process:
        try:
            yield process, lambda: any(one["code"] for one in start.ended_nodes().values())
        finally:
            # Ranks of other machines end when they no longer hear us; until then they would write beside a new start.
            end()
            start.wait_until_over(_NODES_END_SECONDS)


def _new_start(job_file: Path, runtime: Runtime, logs: Path) -> Start:
    starts = job_file.parent / _STARTS_FOLDER
    for earlier in starts.glob(f"*/{START_FILE}"):
        # The run that made it was killed; its ranks on other machines may take a moment to notice.
        Start.model_validate_json(earlier.read_bytes()).wait_until_over(_NODES_END_SECONDS)
    shutil.rmtree(starts, ignore_errors=True)
    folder = (starts / uuid.uuid4().hex[:8]).resolve()
    folder.mkdir(parents=True)
    return Start(
        folder=folder,
        nodes=runtime.nodes,
        ranks_per_node=ranks_per_node(runtime),
        on_gpu=runtime.gpus > 0,
        module=WORKER,
        job_file=job_file.resolve(),
        working_folder=Path.cwd(),
        logs=logs.resolve(),
        extensions=(runtime.scratch / "torch_extensions").resolve(),
        environment=shared_environment(os.environ, runtime.network_interface),
        master_address=runtime.master_address,
        master_port=runtime.master_port,
        timeout_seconds=runtime.communication_timeout_seconds,
    )


def launch_command(
    job_file: Path,
    ranks: int,
    *,
    module: str = WORKER,
    node: int = 0,
    nodes: int = 1,
    master: tuple[str, int] | None = None,
    logs: Path | None = None,
    visible_gpus: str = "",
) -> list[str]:
    """DeepSpeed's launcher of one machine, as the `deepspeed --module` command starts it, three seconds later.

    Args:
        job_file: Argument of every rank.
        ranks: Processes on each machine.
        module: What every rank runs.
        node: This machine's number.
        nodes: Machines.
        master: Address and port at which ranks find rank 0; None takes a free port of this machine.
        logs: Folder of a log for each rank; None lets them write to the launcher's.
        visible_gpus: This machine's CUDA_VISIBLE_DEVICES, which the launcher would overwrite; empty for all.

    Raises:
        InputError: Fewer GPUs are visible than there are ranks.
    """
    gpus = visible_gpus.split(",") if visible_gpus else [str(number) for number in range(ranks)]
    if len(gpus) < ranks:
        raise InputError(
            f"LONGALIGN_GPUS is {ranks} but CUDA_VISIBLE_DEVICES={visible_gpus} shows {len(gpus)}; make them agree"
        )
    address, port = master or ("127.0.0.1", free_port())
    world = base64.urlsafe_b64encode(orjson.dumps({f"node-{number}": gpus[:ranks] for number in range(nodes)})).decode()
    launcher = [sys.executable, "-m", "deepspeed.launcher.launch", f"--world_info={world}", "--no_local_rank"]
    place = [f"--node_rank={node}", f"--master_addr={address}", f"--master_port={port}"]
    logged = [f"--enable_each_rank_log={logs}"] if logs else []
    return [*launcher, *place, *logged, "--module", module, str(job_file)]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def worker_environment(
    base: Mapping[str, str], *, ranks: int, on_gpu: bool, extensions: Path, nodes: int = 1
) -> dict[str, str]:
    """Environment of the training processes of one machine."""
    environment = dict(base)
    environment["TORCH_EXTENSIONS_DIR"] = str(extensions.resolve())
    # ninja is installed beside the interpreter, which may have been started without its environment.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    environment["HF_HUB_OFFLINE"] = "1"
    environment["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Without this, DeepSpeed would quietly train on the CPU where it finds no GPU.
    environment["DS_ACCELERATOR"] = "cuda" if on_gpu else "cpu"
    if not on_gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
        if sys.platform == "linux" and nodes == 1:
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


def _stalled(done: int, seconds: float, logs: Path) -> TrainingError:
    at = f"after step {done}" if done else "before the first step"
    return TrainingError(
        f"training made no step for {seconds:g} seconds {at} (LONGALIGN_STALL_SECONDS) and was ended; a rank hangs, or "
        f"steps take longer: look into {logs}, raise the setting, and run again: it goes on at its last resume point"
    )


def _quote(logs: Path, rank: int) -> None:
    if (file := rank_log(logs, rank)) is not None:
        log.error("the end of %s:\n%s", file, "\n".join(tail(file, _QUOTED_LINES)))


def _hear_last_words(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_LAST_WORDS_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
