"""Machines that are folders: commands put into one run outside the process tree that asked for them.

`python -m tests.fake_hosts ROOT` is all machines. `install(ROOT / "bin")` writes programs by the names
of pdsh, srun and mpirun, which take the arguments they are given in earnest, put a request into every
host's folder, and wait for the exit codes. As over ssh, killing them kills nothing on a host, and a host
has an environment of its own. A host named in ROOT/down never answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("pdsh", "srun", "mpirun")
OWN_ENVIRONMENT = {"HOME": "/tmp", "LANG": "C.UTF-8", "CUDA_VISIBLE_DEVICES": ""}


def install(root: Path) -> Path:
    """Write the programs; returns their folder."""
    folder = root / "bin"
    folder.mkdir(parents=True)
    here = Path(__file__).resolve().parent.parent
    for name in PROGRAMS:
        program = folder / name
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH={here} exec {sys.executable} -m tests.fake_hosts {root} {name} "$@"\n'
        )
        program.chmod(0o755)
    return folder


def serve(root: Path) -> None:
    """Run what is asked of the machines, until killed."""
    running: dict[Path, subprocess.Popen[bytes]] = {}
    while True:
        down = (root / "down").read_text().split() if (root / "down").exists() else []
        for request in root.glob("hosts/*/*.json"):
            if request.parent.name not in down:
                asked = json.loads(request.read_text())
                request.unlink()
                log = request.with_suffix(".log").open("wb")
                running[request] = subprocess.Popen(
                    asked["command"], env=asked["env"], cwd=asked["cwd"], stdout=log, stderr=log, start_new_session=True
                )
        for request, process in list(running.items()):
            if process.poll() is not None:
                request.with_suffix(".code").write_text(str(process.returncode & 255))
                del running[request]
        time.sleep(0.02)


def ask(root: Path, program: str, arguments: list[str]) -> int:
    """What a program does: every host's part, then the largest exit code."""
    (root / f"{program}.called").write_text(json.dumps(arguments))
    requests = []
    for number, host in enumerate(hosts_of(program, arguments)):
        command, env = part_of(program, arguments, number)
        request = root / "hosts" / host / f"{os.getpid()}.json"
        request.parent.mkdir(parents=True, exist_ok=True)
        part = request.with_suffix(".part")
        part.write_text(json.dumps({"command": command, "env": env, "cwd": "/"}))
        part.rename(request)
        requests.append(request)
    while not all(request.with_suffix(".code").exists() for request in requests):
        time.sleep(0.02)
    return max(int(request.with_suffix(".code").read_text()) for request in requests)


def hosts_of(program: str, arguments: list[str]) -> list[str]:
    """The machines that the arguments ask for."""
    if program == "pdsh":
        return arguments[arguments.index("-w") + 1].split(",")
    if program == "mpirun":
        lines = Path(arguments[arguments.index("--hostfile") + 1]).read_text().splitlines()
        return [line.split()[0] for line in lines]
    return [f"slurm-{number}" for number in range(int(arguments[arguments.index("--nodes") + 1]))]


def part_of(program: str, arguments: list[str], number: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment of one machine."""
    if program == "pdsh":
        return ["sh", "-c", arguments[-1].replace("%n", str(number))], OWN_ENVIRONMENT
    command = arguments[arguments.index(sys.executable) :]
    if program == "mpirun":
        names = [arguments[at + 1] for at, part in enumerate(arguments) if part == "-x"]
        passed = {name: os.environ[name] for name in names}
        return command, OWN_ENVIRONMENT | passed | {"OMPI_COMM_WORLD_RANK": str(number)}
    assert "--export=ALL" in arguments
    return command, dict(os.environ) | {"SLURM_NODEID": str(number)}


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(Path(sys.argv[1]))
    else:
        sys.exit(ask(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
