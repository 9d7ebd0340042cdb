"""One machine's part of a training on several: `python -m longalign_core.training.node START.json [--node N]`.

pdsh, mpirun or srun start it once on every machine. It starts this machine's ranks through DeepSpeed's
launcher, and ends them when the run that asked for them is gone, which no remote shell sees to.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from longalign_core.supervise import supervised
from longalign_core.training.launch import free_port, launch_command, remove_stale_locks, worker_environment
from longalign_core.training.start import Listener, Start

_NODE_VARIABLES = ("SLURM_NODEID", "OMPI_COMM_WORLD_RANK")
_POLL_SECONDS = 0.5
_RUN_GONE = 75


def main(arguments: list[str]) -> int:
    """Start this machine's ranks and wait for their end. Returns their exit code."""
    start = Start.model_validate_json(Path(arguments[0]).read_bytes())
    node = int(arguments[2]) if len(arguments) > 1 else _node_number()
    listener = Listener(start.folder)
    signal.signal(signal.SIGTERM, _stop)
    code = _RUN_GONE
    try:
        code = _run(start, node, listener)
    finally:
        start.node_ended(node, code, socket.gethostname())
    return code


def _stop(signum: int, _: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _node_number() -> int:
    for name in _NODE_VARIABLES:
        if name in os.environ:
            return int(os.environ[name])
    raise SystemExit(f"this machine's number is not known: none of {', '.join(_NODE_VARIABLES)} is set")


def _run(start: Start, node: int, listener: Listener) -> int:
    if node == 0:
        start.announce_master(start.master_address or socket.gethostname(), start.master_port or free_port())
    deadline = time.monotonic() + start.timeout_seconds
    while (master := start.master()) is None:
        if not listener.hears_run():
            return _RUN_GONE
        if time.monotonic() > deadline:
            sys.stderr.write(f"the first machine did not start within {start.timeout_seconds:g} seconds\n")
            return 1
        time.sleep(_POLL_SECONDS)
    host = socket.gethostname()
    # Machines may differ in their processors, and what is compiled is made for one's own.
    extensions = start.extensions / host
    remove_stale_locks(extensions)
    environment = worker_environment(
        os.environ | start.environment,
        ranks=start.ranks_per_node,
        on_gpu=start.on_gpu,
        extensions=extensions,
        nodes=start.nodes,
    )
    command = launch_command(
        start.job_file,
        start.ranks_per_node,
        module=start.module,
        node=node,
        nodes=start.nodes,
        master=master,
        logs=start.logs,
        visible_gpus=os.environ.get("CUDA_VISIBLE_DEVICES", "") if start.on_gpu else "",
    )
    log = start.folder / f"node-{node}.log"
    with supervised(command, env=environment, log=log, cwd=start.working_folder) as process:
        while listener.hears_run():
            try:
                return process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    return _RUN_GONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
