"""Start a command so that nothing of it outlives the process that asked for it.

A training run or a model server has children of its own, some in new sessions. When the run that
started them is killed, even by SIGKILL, they would keep their GPUs. So each is started through
this small wrapper process: `python -m longalign_core.supervise -- COMMAND...`. The wrapper adopts
every orphan below it, learns of its parent's death from the kernel, and ends the whole tree.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

GRACE_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PARENT_CHECK_SECONDS = 1.0


@contextmanager
def supervised(
    command: Sequence[str], *, env: Mapping[str, str] | None, log: Path, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for as long as the block lasts; leaving the block ends it and all its descendants.

    Args:
        command: Program and arguments.
        env: The whole environment; None passes on our own. `longalign_core` must be importable in it.
        log: File that the command's output and errors are appended to.
        cwd: Working directory; None keeps ours.

    Yields:
        The wrapper process. Its return code is the command's, or 128 + signal number.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    wrapper = [sys.executable, "-m", "longalign_core.supervise", "--parent", str(os.getpid()), "--", *command]
    with log.open("ab") as output:
        process = subprocess.Popen(
            wrapper, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        _end(process)


def main(arguments: Sequence[str]) -> int:
    """The wrapper: run the command, end its tree with it or with our parent. Returns the exit code."""
    split = arguments.index("--")
    options, command = arguments[:split], arguments[split + 1 :]
    parent = int(options[1]) if options else os.getppid()

    def stop(signum: int, _: FrameType | None) -> None:
        # The kernel also sends the death signal when only the thread that started us ends.
        if signum in (signal.SIGTERM, signal.SIGINT) or os.getppid() != parent:
            raise _StopRequestedError(signum)

    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)
    for signum in watched:
        signal.signal(signum, stop)
    code = 128 + signal.SIGTERM
    try:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
        # Covers the moment before prctl, and systems without it.
        signal.setitimer(signal.ITIMER_REAL, 0.01, _PARENT_CHECK_SECONDS)
        code = _run(command)
    except _StopRequestedError:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for signum in watched:
            signal.signal(signum, signal.SIG_IGN)
        _end_descendants()
    return code


class _StopRequestedError(BaseException):
    """We were asked to stop, or our parent is gone."""


def _run(command: Sequence[str]) -> int:
    """Start the command, reap whatever dies below us, and return the command's exit code."""
    try:
        process = subprocess.Popen(command, preexec_fn=die_with_parent)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        return 127
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == process.pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def die_with_parent(signum: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send us a signal when the process that started us ends."""
    _prctl(_PR_SET_PDEATHSIG, signum)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _end_descendants() -> None:
    """TERM, then KILL after the grace, until no descendant is left: they may start others meanwhile."""
    deadline = time.monotonic() + GRACE_SECONDS
    asked: set[psutil.Process] = set()
    while True:
        _reap()
        alive = psutil.Process().children(recursive=True)
        if not alive:
            return
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                if time.monotonic() > deadline:
                    process.kill()
                elif process not in asked:
                    process.terminate()
                    asked.add(process)
        time.sleep(0.02)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE_SECONDS * 2)
    except subprocess.TimeoutExpired:  # the wrapper itself is stuck or stopped
        for victim in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
