"""Times of two ways to do the same, and the peak memory of a process."""

from __future__ import annotations

import os
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds of ours and of a peer, taken in turns.

    Attributes:
        ours: Of each turn.
        peer: Of each turn.
        ours_cpu: Processor seconds of each turn, of all threads and of processes that ended in it.
        peer_cpu: The same of the peer.
    """

    ours: tuple[float, ...]
    peer: tuple[float, ...]
    ours_cpu: tuple[float, ...]
    peer_cpu: tuple[float, ...]

    @property
    def speed_ratio(self) -> float:
        """Our speed as a fraction of the peer's, by medians: other work on the machine hits both sides."""
        return statistics.median(self.peer) / statistics.median(self.ours)

    @property
    def cpu_ratio(self) -> float:
        """The same by processor time of the leanest turns, which other work on the machine hardly changes."""
        return min(self.peer_cpu) / min(self.ours_cpu)


def compare(ours: Callable[[], int], peer: Callable[[], int], *, turns: int) -> Comparison:
    """Time both in turns, after one turn each that does not count.

    Both return what they came to, which must be the same: only equal work is compared.
    """
    assert ours() == peer(), "the two sides did not do the same work"
    wall: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        # Which goes first changes: the first finds other caches than the second.
        for side in (0, 1) if turn % 2 else (1, 0):
            start, cpu_start = time.perf_counter(), _cpu_seconds()
            (ours, peer)[side]()
            wall[side].append(time.perf_counter() - start)
            cpu[side].append(_cpu_seconds() - cpu_start)
    return Comparison(tuple(wall[0]), tuple(wall[1]), tuple(cpu[0]), tuple(cpu[1]))


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, imports included, in MB.

    By the kernel's own mark for the program: `ru_maxrss` also counts what started it.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.M)):
        return int(found[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def keep_to_cores(num_cores: int) -> int:
    """Let this process and those it starts use so many cores. Returns how many it has."""
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))[:num_cores]
    os.sched_setaffinity(0, cores)
    return len(cores)


def keep_to_core(number: int) -> None:
    """Keep this thread, and those that it starts, to one of this process's cores."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})


def machine() -> str:
    """The processor, in words."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()
