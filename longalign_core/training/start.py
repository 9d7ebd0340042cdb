"""What one start of training is: a folder that every machine sees, and what lies in it.

`start.json` says what to start; `alive` changes every second while the run that started it lives;
`master.json` is where ranks find rank 0; `node-N.json` is left by a machine whose ranks have ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

START_FILE = "start.json"
# Together with the grace of `supervise` well under the 15 seconds in which every rank has to be gone.
SILENCE_SECONDS = 6.0
_BEAT_SECONDS = 1.0
_ALIVE, _MASTER = "alive", "master.json"


class Start(BaseModel):
    """What every machine needs to know to start its ranks.

    Attributes:
        folder: Of this start; on a file system that all machines share.
        nodes: Machines.
        ranks_per_node: Processes on each.
        on_gpu: Whether each process gets a GPU.
        module: Python module of a rank.
        job_file: Its argument.
        working_folder: Where ranks run.
        logs: Folder of the ranks' logs.
        extensions: Folder of what DeepSpeed compiles.
        environment: Variables that the machines must have alike.
        master_address: Where ranks find rank 0; None takes the first machine's name.
        master_port: The port there; None takes a free one.
        timeout_seconds: So long a machine waits for the first one to be found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    nodes: int
    ranks_per_node: int
    on_gpu: bool
    module: str
    job_file: Path
    working_folder: Path
    logs: Path
    extensions: Path
    environment: dict[str, str]
    master_address: str | None
    master_port: int | None
    timeout_seconds: float

    def write(self) -> Path:
        """Write `start.json`; returns its path."""
        return _write(self.folder / START_FILE, self.model_dump(mode="json"))

    def announce_master(self, address: str, port: int) -> None:
        """Say where ranks find rank 0."""
        _write(self.folder / _MASTER, {"address": address, "port": port})

    def master(self) -> tuple[str, int] | None:
        """Where ranks find rank 0; None while the first machine has not said so."""
        found = _read(self.folder / _MASTER)
        return None if found is None else (found["address"], found["port"])

    def node_ended(self, node: int, code: int, host: str) -> None:
        """Say that the ranks of a machine are gone."""
        _write(self.folder / f"node-{node}.json", {"code": code, "host": host})

    def ended_nodes(self) -> dict[int, dict[str, Any]]:
        """Exit code and host of each machine whose ranks are gone, by its number."""
        found = {node: _read(self.folder / f"node-{node}.json") for node in range(self.nodes)}
        return {node: end for node, end in found.items() if end is not None}

    def wait_until_over(self, seconds: float) -> None:
        """Wait for all machines to have ended, at most so long: one that was switched off never says so."""
        deadline = time.monotonic() + seconds
        while len(self.ended_nodes()) < self.nodes and time.monotonic() < deadline:
            time.sleep(0.2)


@contextmanager
def heartbeat(folder: Path) -> Iterator[Callable[[], None]]:
    """Show inside the block, from a thread of its own, that the run is alive.

    Yields:
        A call that says that it is over, as leaving the block does.
    """
    over = threading.Event()
    file = folder / _ALIVE

    def beat() -> None:
        count = 0
        while True:
            count += 1
            # Replaced, not rewritten: what another machine reads through NFS is then never an old copy.
            _write(file, count)
            if over.wait(_BEAT_SECONDS):
                return

    def end() -> None:
        over.set()
        thread.join()
        file.unlink(missing_ok=True)

    _write(file, 0)
    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield end
    finally:
        end()


class Listener:
    """Listens on another machine for the run's heartbeat. Clocks of machines are not compared."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _ALIVE
        self._count: object = None
        self._heard = time.monotonic()

    def hears_run(self) -> bool:
        """Whether the run is alive: its file is there, and changed within the last seconds."""
        if not self._file.exists():
            return False
        now, count = time.monotonic(), _read(self._file)
        if count != self._count:
            self._count, self._heard = count, now
        return now - self._heard < SILENCE_SECONDS


def _write(file: Path, value: object) -> Path:
    unfinished = file.with_suffix(".part")
    unfinished.write_bytes(orjson.dumps(value))
    return unfinished.replace(file)


def _read(file: Path) -> Any:
    try:
        return orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
