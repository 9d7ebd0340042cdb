"""Why training ended, in one sentence with what to change: from what ranks said, else from what they wrote."""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from longalign_core import errors
from longalign_core.errors import LongAlignError, TrainingError
from longalign_core.training.rank_reports import RankFailure

_AGAIN = "then run again: where neither has changed, it goes on at its last resume point"
_GOES_ON = "run again: it goes on at its last resume point"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A rank that waits for another one says one of these when that is gone; it is never the cause itself.
_LOST = re.compile(
    r"connection (closed|reset)|broken pipe|timed? ?out|timeout|clients joined|NCCL|gloo|remote error|peer", re.I
)
_HOST_MEMORY = re.compile(r"DefaultCPUAllocator|cannot allocate memory|can't allocate memory|std::bad_alloc", re.I)
_PORT = re.compile(r"EADDRINUSE|address already in use", re.I)


def is_out_of_space(error: BaseException) -> bool:
    """Whether an error of writing a file means that there is no room for it."""
    text = str(error)
    return (isinstance(error, OSError) and error.errno in _NO_SPACE) or bool(
        re.search(
            r"No space left|Disk quota|File too large|file write failed|unexpected pos|os error (28|27|122)", text
        )
    )


def training_failure(
    code: int,
    failures: Sequence[RankFailure],
    log: str,
    *,
    missing: Sequence[int] = (),
    logs: Path | None = None,
    timeout_seconds: float = 600,
) -> LongAlignError:
    """The error that says why training ended.

    Args:
        code: Exit code of the launcher, in case that no rank said anything.
        failures: What ranks said.
        log: What the launcher wrote.
        missing: Ranks that never started.
        logs: Where the ranks' logs are.
        timeout_seconds: So long ranks wait for one another.
    """
    if failures:
        cause = min(failures, key=_distance)
        where = f" ({cause.host}); its log is in {logs}" if logs else f" ({cause.host})"
        return _named(cause, missing, where, timeout_seconds)
    # DeepSpeed's launcher exits with a killed rank's negative code, seen from outside modulo 256.
    killed = next((number for number in signal.Signals if code in (256 - number, 128 + number)), None)
    if killed is not None:
        return _killed(killed, "a training process")
    return TrainingError(f"training ended with exit code {code}: {log_cause(log)}")


def log_cause(log: str) -> str:
    """The last line of a log that names an error, else its last line; at most 300 characters."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(\[rank\d+\]: *)?[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (named or lines or ["the log is empty"])[-1][:300]


def _distance(failure: RankFailure) -> tuple[int, int]:
    """How far what a rank says is from the cause: what happened to itself comes before what it lost."""
    if _is_ours(failure):
        return 0, failure.rank
    if failure.kind in ("OutOfMemoryError", "MemoryError") or _HOST_MEMORY.search(failure.message):
        return 1, failure.rank
    if failure.errno in _NO_SPACE or _PORT.search(failure.message):
        return 2, failure.rank
    if failure.kind == "Signal":
        return 4, failure.rank
    return (5 if _LOST.search(failure.message) or failure.kind.startswith("Dist") else 3), failure.rank


def _is_ours(failure: RankFailure) -> bool:
    found = getattr(errors, failure.kind, None)
    return isinstance(found, type) and issubclass(found, LongAlignError)


def _named(cause: RankFailure, missing: Sequence[int], where: str, timeout_seconds: float) -> LongAlignError:
    rank, message = f"rank {cause.rank}", _one_line(cause.message)
    if _is_ours(cause):
        error: LongAlignError = getattr(errors, cause.kind)(cause.message)
        return error
    if cause.kind == "OutOfMemoryError":
        return TrainingError(
            f"{rank} ran out of GPU memory ({message}); set LONGALIGN_GRADIENT_CHECKPOINTING=true, then "
            "LONGALIGN_OFFLOAD_ACTIVATIONS=true, LONGALIGN_OFFLOAD_OPTIMIZER=cpu, raise LONGALIGN_ZERO_STAGE or "
            f"LONGALIGN_GPUS, or lower batching.capacity (extension.context_tokens in `extend`), {_AGAIN}"
        )
    if cause.kind == "MemoryError" or _HOST_MEMORY.search(cause.message):
        return TrainingError(
            f"{rank} ran out of CPU memory ({message}); lower LONGALIGN_RANKS or batching.capacity "
            "(extension.context_tokens in `extend`), set LONGALIGN_OFFLOAD_OPTIMIZER, LONGALIGN_OFFLOAD_PARAMETERS "
            f"and LONGALIGN_OFFLOAD_ACTIVATIONS back, or use a machine with more memory, {_AGAIN}"
        )
    if cause.errno in _NO_SPACE:
        return TrainingError(f"{rank} found no space left ({message}); free some on the disk of LONGALIGN_SCRATCH, "
                             f"or set it to a larger one; {_GOES_ON}")  # fmt: skip
    if _PORT.search(cause.message):
        return TrainingError(
            f"the port at which ranks meet is in use ({message}); set LONGALIGN_MASTER_PORT to a free one, or leave "
            "it unset: then one is chosen"
        )
    if cause.kind == "Signal":
        return _killed(int(cause.message), f"{rank}{where.split(';')[0]}")
    if _distance(cause)[0] == 5:
        return _lost(rank, message, missing, where, timeout_seconds)
    return TrainingError(f"{rank} failed with {cause.kind}: {message}{where}")


def _lost(rank: str, message: str, missing: Sequence[int], where: str, timeout_seconds: float) -> TrainingError:
    if missing:
        names = ", ".join(map(str, missing))
        return TrainingError(
            f"rank {names} never joined within {timeout_seconds:g} seconds (LONGALIGN_COMMUNICATION_TIMEOUT_SECONDS), "
            f"says {rank}{where}; check that every machine is up and reaches LONGALIGN_MASTER_ADDRESS, {_GOES_ON}"
        )
    return TrainingError(
        f"{rank} lost touch with another rank or waited over {timeout_seconds:g} seconds for it ({message}){where}; "
        "check that every machine is up and LONGALIGN_NETWORK_INTERFACE connects them, or raise "
        f"LONGALIGN_COMMUNICATION_TIMEOUT_SECONDS; {_GOES_ON}"
    )


def _killed(number: int, who: str) -> TrainingError:
    if number == signal.SIGKILL:
        return TrainingError(
            f"{who} was killed (signal 9), most often for want of memory; lower LONGALIGN_RANKS or "
            "batching.capacity (extension.context_tokens in `extend`), or use a machine with more memory, then run "
            "again: where neither has changed, it goes on at its last resume point"
        )
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    return TrainingError(f"{who} was ended by signal {number} ({name}); {_GOES_ON}")


def _one_line(message: str) -> str:
    return next((line.strip() for line in message.splitlines() if line.strip()), "no message")[:300]
