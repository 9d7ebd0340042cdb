"""Exactness alone: the parity table of the training benchmark, for every number of ranks.

`python -m benchmarks.parity [--json FILE]`
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.measuring import machine
from benchmarks.training import FULL, TARGETS, measure_parity
from benchmarks.training_tables import parity_table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    console = Console()
    console.width = max(console.width, 150)  # or errors are cut off where output is no terminal
    with tempfile.TemporaryDirectory(prefix="longalign-parity-") as name:
        figures = measure_parity(FULL.parity_ranks, Path(name))
    figures |= {
        "targets": {"parity_max_rel_error": TARGETS["parity_max_rel_error"]},
        "device": machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    console.print(parity_table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
