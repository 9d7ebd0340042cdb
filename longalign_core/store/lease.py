"""Leases: one machine at a time works at an address, so that nothing paid for is paid twice.

A lease is an object with its owner's name and a beat count. Whoever finds one waits until it is
gone, or until its beat has not changed for as long as the owner promised by the waiter's own
clock: no two clocks are ever compared. A lease left by a dead process of this machine is taken
over at once.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from longalign_core.errors import StoreError
from longalign_core.store.files import Files

log = logging.getLogger(__name__)


@contextmanager
def lease(
    files: Files, address: str, *, seconds: float = 60.0, poll: float = 1.0, give_up: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Hold the lease on an address for the length of the block, waiting for it first.

    Args:
        files: The store's files.
        address: What is worked at.
        seconds: Without a beat for so long, the owner counts as dead.
        poll: Seconds between looks while waiting.
        give_up: Asked while waiting; true ends the wait without the lease.

    Yields:
        Whether the lease is held; false only after `give_up`.
    """
    name = f"_leases/{address}.json"
    owner = _this_process()
    if not _acquire(files, name, owner, seconds, poll, give_up):
        yield False
        return
    stop = threading.Event()
    beat = threading.Thread(
        target=_beat, args=(files, name, owner, seconds, stop), daemon=True, name=f"lease {address}"
    )
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        with suppress(FileNotFoundError, StoreError, ValueError):
            if _same(json.loads(files.read(name)[0]), owner):
                files.delete(name)


def _acquire(
    files: Files, name: str, owner: dict[str, Any], seconds: float, poll: float, give_up: Callable[[], bool]
) -> bool:
    seen, since, told = "", time.monotonic(), False
    while True:
        with suppress(FileExistsError):
            files.create(name, _record(owner, 0, seconds))
            return True
        try:
            data, version = files.read(name)
        except FileNotFoundError:
            continue
        holder = _parse(data)
        if version != seen:
            seen, since = version, time.monotonic()
        waited_out = time.monotonic() - since > float(holder.get("seconds", seconds))
        if waited_out or _is_dead_neighbour(holder):
            with suppress(FileExistsError, FileNotFoundError):
                files.replace(name, _record(owner, 0, seconds), version)
                log.warning("took over the lease %s from %s", name, holder.get("host", "an unknown owner"))
                return True
            continue
        if give_up():
            return False
        if not told:
            log.warning("waiting for %s, which process %s on %s works at", name, holder.get("pid"), holder.get("host"))
            told = True
        time.sleep(poll)


def _beat(files: Files, name: str, owner: dict[str, Any], seconds: float, stop: threading.Event) -> None:
    count = 0
    while not stop.wait(seconds / 4):
        count += 1
        try:
            data, version = files.read(name)
            if not _same(_parse(data), owner):
                raise FileNotFoundError(name)
            files.replace(name, _record(owner, count, seconds), version)
        except FileExistsError:
            continue  # a repeated write whose first try had landed, or a takeover: the next look tells
        except FileNotFoundError:
            log.error("the lease %s was taken over by another process; both may be working at it", name)
            return
        except StoreError as error:
            log.warning("could not renew the lease %s: %s", name, error)


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": process.pid,
        "started": process.create_time(),
        "thread": threading.get_ident(),
    }


def _machine() -> str | None:
    """This boot of this machine and this space of process numbers: two containers may share a host name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _is_dead_neighbour(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process that could be seen from here, and is gone."""
    machine = _machine()
    if machine is None or holder.get("machine") != machine:
        return False
    try:
        # Adjusting the clock moves start times a little; process numbers do not come again so soon.
        return abs(psutil.Process(int(holder["pid"])).create_time() - float(holder["started"])) > 60
    except psutil.NoSuchProcess:
        return True
    except (KeyError, ValueError, TypeError, psutil.Error):
        return False


def _record(owner: dict[str, Any], beat: int, seconds: float) -> bytes:
    return json.dumps({**owner, "beat": beat, "seconds": seconds}).encode()


def _parse(data: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _same(record: dict[str, Any], owner: dict[str, Any]) -> bool:
    return all(record.get(name) == value for name, value in owner.items())
