"""What is said when a resume point or a model does not fit on the disk. The point before it stays whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longalign_core.errors import TrainingError
from longalign_core.training.failure import is_out_of_space


@contextmanager
def room_for(what: str, folder: Path, num_bytes: int) -> Iterator[None]:
    """Write something in the block; a full disk ends it with what is needed.

    Args:
        what: What is written, for the error.
        folder: Where.
        num_bytes: About what it needs.

    Raises:
        TrainingError: The disk, a quota or a limit on file sizes was reached.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_space(error):
            raise
        place = next(parent for parent in folder.resolve().parents if parent.is_dir())
        free = shutil.disk_usage(place).free
        raise TrainingError(
            f"no space left for {what} in {place}: it needs about {_size(num_bytes)}, {_size(free)} are "
            "free (or a quota or limit on file sizes is lower); free some, or set LONGALIGN_SCRATCH to a larger disk, "
            "and run again: nothing before it is lost"
        ) from error


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
