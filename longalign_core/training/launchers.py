"""How training is started on several machines: hosts, and the command lines of pdsh, mpirun and srun.

Each starts `longalign_core.training.node` once on every machine. Secrets never stand in a command
line, where every user of a machine can read them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.training.deepspeed_config import ranks_per_node

_PROGRAMS = {"pdsh": "pdsh", "openmpi": "mpirun", "slurm": "srun"}
# What the machines must have alike. A machine keeps its own CUDA_VISIBLE_DEVICES, HOME and the like.
_PREFIXES = ("NCCL_", "GLOO_", "TORCH_", "PYTORCH_", "OMP_", "MKL_", "UCX_", "FI_", "HF_", "TRANSFORMERS_", "DS_")
_NAMES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TOKENIZERS_PARALLELISM", "CUDA_HOME", "CC", "CXX")
_SECRET_WORDS = {"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS", "AUTH"}


def check_launcher(runtime: Runtime) -> tuple[str, ...]:
    """Refuse settings with which training cannot be started.

    Returns:
        The hosts of the hostfile; empty where the launcher knows them itself.

    Raises:
        InputError: Launcher, nodes and hostfile do not go together, or the launcher's program is not there.
    """
    launcher = runtime.launcher
    if launcher == "local":
        if runtime.nodes > 1:
            raise InputError(
                f"LONGALIGN_NODES is {runtime.nodes} but LONGALIGN_LAUNCHER=local starts one machine; "
                "set LONGALIGN_LAUNCHER to pdsh, openmpi or slurm"
            )
        return ()
    hosts = () if launcher == "slurm" else _hosts(runtime)
    if shutil.which(_PROGRAMS[launcher]) is None:
        raise InputError(
            f"LONGALIGN_LAUNCHER={launcher} starts `{_PROGRAMS[launcher]}`, which is not on the PATH; "
            "install it on this machine, or choose another launcher"
        )
    return hosts


def _hosts(runtime: Runtime) -> tuple[str, ...]:
    if runtime.hostfile is None:
        raise InputError(
            f"LONGALIGN_LAUNCHER={runtime.launcher} needs LONGALIGN_HOSTFILE, with one `name slots=N` a line"
        )
    hosts = read_hostfile(runtime.hostfile)
    if len(hosts) != runtime.nodes:
        raise InputError(
            f"LONGALIGN_NODES is {runtime.nodes} but {runtime.hostfile} lists {len(hosts)} hosts; make them agree"
        )
    expected, setting = ranks_per_node(runtime), "LONGALIGN_GPUS" if runtime.gpus else "LONGALIGN_RANKS"
    for host, slots in hosts.items():
        if slots != expected:
            raise InputError(
                f"host {host} has slots={slots} in {runtime.hostfile} but {setting} is {expected}; "
                "every machine runs as many processes: make them agree"
            )
    return tuple(hosts)


def read_hostfile(file: Path) -> dict[str, int]:
    """Processes by host, in the file's order, in the form that DeepSpeed and OpenMPI read.

    Raises:
        InputError: The file is missing, or a line is not `name slots=N`.
    """
    if not file.is_file():
        raise InputError(f"LONGALIGN_HOSTFILE {file} is no file; write one `name slots=N` a line")
    hosts: dict[str, int] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"([\w.:-]+)\s+slots=([1-9]\d*)", text)
        if match is None or match[1] in hosts:
            what = "names a host twice" if match else "is not `name slots=N`"
            raise InputError(f"line {number} of {file} {what}: {text!r}")
        hosts[match[1]] = int(match[2])
    return hosts


def shared_environment(base: Mapping[str, str], interface: str | None) -> dict[str, str]:
    """Those of our variables that the other machines need. No keys: they have to be there already."""
    chosen = {
        name: value
        for name, value in base.items()
        if (name.startswith(_PREFIXES) or name in _NAMES) and not _SECRET_WORDS & set(name.upper().split("_"))
    }
    if interface is not None:
        chosen |= {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    return chosen


def nodes_command(runtime: Runtime, hosts: tuple[str, ...], start_file: Path, working_folder: Path) -> list[str]:
    """The command line that starts every machine's part.

    Args:
        runtime: Has the launcher and its arguments.
        hosts: Of the hostfile.
        start_file: The `start.json` that machines read.
        working_folder: Where they run.
    """
    node = [sys.executable, "-u", "-m", "longalign_core.training.node", str(start_file.resolve())]
    extra = shlex.split(runtime.launcher_arguments)
    nodes = str(runtime.nodes)
    if runtime.launcher == "slurm":
        gpus = [f"--gpus-per-node={runtime.gpus}"] if runtime.gpus else []
        # One task a machine would otherwise be bound to one of its cores.
        tasks = ["--nodes", nodes, "--ntasks", nodes, "--ntasks-per-node=1", "--cpu-bind=none"]
        return ["srun", *tasks, *gpus, f"--chdir={working_folder}", "--export=ALL", *extra, *node]
    if runtime.launcher == "openmpi":
        placed = ["-n", nodes, "--map-by", "ppr:1:node", "--bind-to", "none"]
        # Passed on by name, so that no value stands in the command line.
        names = [
            part for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ for part in ("-x", name)
        ]
        return [
            "mpirun",
            "--hostfile",
            str(runtime.hostfile),
            *placed,
            "--wdir",
            str(working_folder),
            *names,
            *extra,
            *node,
        ]
    path = f"PYTHONPATH={shlex.quote(os.environ['PYTHONPATH'])} " if os.environ.get("PYTHONPATH") else ""
    # pdsh puts the machine's number in place of %n.
    remote = f"cd {shlex.quote(str(working_folder))} && {path}exec {shlex.join(node)} --node %n"
    return ["pdsh", "-S", "-R", "ssh", "-f", nodes, "-w", ",".join(hosts), *extra, remote]
