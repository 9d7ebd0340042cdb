"""A resume point in a form that any number of ranks loads.

Run as `python -m longalign_core.training.universal POINT TARGET`.
"""

from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from pathlib import Path

# Each holds a rank's whole optimizer state in memory.
_MOST_PROCESSES = 4


def convert(point: Path, target: Path) -> None:
    """Make DeepSpeed's universal checkpoint of a resume point whose digests were checked; it is unpickled.

    Args:
        point: Folder of the point.
        target: Folder to write, beside the point. What an earlier conversion left there is removed.
    """
    from deepspeed.checkpoint import ds_to_universal

    shutil.rmtree(target, ignore_errors=True)
    processes = min(_MOST_PROCESSES, os.cpu_count() or 1)
    options = Namespace(
        input_folder=str(point),
        output_folder=str(target),
        num_extract_workers=processes,
        num_merge_workers=processes,
        keep_temp_folder=False,
        strict=True,
        # Without it, what ZeRO-1 and 2 save is refused.
        inject_missing_state=True,
    )
    ds_to_universal.main(options)
    (target.parent / "latest_universal").unlink(missing_ok=True)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
