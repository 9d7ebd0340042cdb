"""What each rank says of itself: that it started, and why it gave up. A file a rank, on any machine."""

from __future__ import annotations

import shutil
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

REPORTS_FOLDER = ".ranks"
_LONGEST, _ROOM = 2_000, 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFailure:
    """Why a rank ended.

    Attributes:
        rank: Its number among all ranks.
        host: Its machine.
        kind: Class of the error; `Signal` where it was killed by one.
        message: What the error says; the signal's number.
        errno: The operating system's number of an OSError.
    """

    rank: int
    host: str
    kind: str
    message: str
    errno: int | None = None


def clear_reports(out_dir: Path) -> None:
    """Forget what ranks of an earlier start said."""
    shutil.rmtree(out_dir / REPORTS_FOLDER, ignore_errors=True)
    (out_dir / REPORTS_FOLDER).mkdir(parents=True)


def report_started(out_dir: Path, rank: int) -> None:
    """This rank is about to look for the others. Makes room for what it may have to say when the disk is full."""
    file = _file(out_dir, rank)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"null".ljust(_ROOM))


def report_failure(out_dir: Path, rank: int, error: BaseException) -> None:
    """This rank gives up because of an error."""
    kinds = [one.__name__ for one in type(error).__mro__]
    # torch's out-of-memory error has had several homes, always under this name.
    kind = "OutOfMemoryError" if "OutOfMemoryError" in kinds else kinds[0]
    _report(out_dir, rank, kind, str(error), error.errno if isinstance(error, OSError) else None)


def report_signal(out_dir: Path, rank: int, signal: int) -> None:
    """This rank was killed by a signal."""
    _report(out_dir, rank, "Signal", str(signal), None)


def read_failures(out_dir: Path) -> list[RankFailure]:
    """What ranks that ended said, by rank."""
    failures = []
    for file in (out_dir / REPORTS_FOLDER).glob("*.json"):
        try:
            told = orjson.loads(file.read_bytes())
        except orjson.JSONDecodeError:  # being written
            continue
        if told is not None:
            failures.append(RankFailure(**told))
    return sorted(failures, key=lambda failure: failure.rank)


def missing_ranks(out_dir: Path, num_ranks: int) -> list[int]:
    """Ranks that never came as far as looking for the others."""
    return [rank for rank in range(num_ranks) if not _file(out_dir, rank).exists()]


def _report(out_dir: Path, rank: int, kind: str, message: str, errno: int | None) -> None:
    failure = RankFailure(rank=rank, host=socket.gethostname(), kind=kind, message=message[:_LONGEST], errno=errno)
    with _file(out_dir, rank).open("r+b") as file:
        file.write(orjson.dumps(asdict(failure)).ljust(_ROOM))


def _file(out_dir: Path, rank: int) -> Path:
    return out_dir / REPORTS_FOLDER / f"rank-{rank}.json"
