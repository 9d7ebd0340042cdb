"""Training: naive, sorted and the reference's batches against ours; TRL; exactness; memory; a GPU where there is one.

`python -m benchmarks.training [--quick] [--json FILE] [--peers FOLDER]`; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import training_parity as parity
from benchmarks import training_tables as tables
from benchmarks.measuring import keep_to_cores, machine
from benchmarks.packing_peers import PeerError, cache_folder
from benchmarks.training_gpu import probe_gpu
from benchmarks.training_inputs import Shape
from benchmarks.training_loss import VARIANTS, probe_loss
from benchmarks.training_peer import compare_trl
from benchmarks.training_ranks import RANKS, run_tasks, write_job
from benchmarks.training_strategies import compare_strategies

TARGETS = {"vs_naive": 1.6, "vs_naive_8_ranks": 3.5, "vs_reference_packing": 1.15, "parity_max_rel_error": 1e-5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        shape: Of the model.
        sequences: Of the mix, by every strategy.
        turns: Of every strategy.
        trl_sequences: That both trainers learn from; one step holds them all.
        trl_epochs: Passes over them.
        trl_turns: Of both trainers.
        held_out: Sequences that neither saw.
        parity_ranks: Numbers of ranks that gradients are compared of.
        loss_sizes: Tokens, vocabulary and width of the memory measurement.
    """

    shape: Shape
    sequences: int
    turns: int
    trl_sequences: int
    trl_epochs: int
    trl_turns: int
    held_out: int
    parity_ranks: tuple[int, ...]
    loss_sizes: tuple[int, int, int]


QUICK = Sizes(
    shape=Shape(),
    sequences=190,
    turns=2,
    trl_sequences=90,
    trl_epochs=4,
    trl_turns=1,
    held_out=48,
    parity_ranks=(1, 2),
    loss_sizes=(4096, 49_152, 128),
)
FULL = Sizes(
    shape=Shape(),
    sequences=750,
    turns=5,
    trl_sequences=90,
    trl_epochs=24,
    trl_turns=3,
    held_out=96,
    parity_ranks=(1, 2, 4),
    loss_sizes=(8192, 49_152, 576),
)


def measure_parity(ranks_of_splits: Sequence[int], folder: Path) -> dict[str, Any]:
    """Worst gradient error of every split of the steps, and of all."""
    parity.write_inputs(folder)
    parity.expect(folder)
    found = []
    for ranks in ranks_of_splits:
        splits = parity.splits(ranks)
        jobs = [
            write_job(
                folder / f"{ranks}-{number}",
                plan=parity.plan_of(folder, split.form),
                tokens=folder / "tokens",
                model=folder / "model",
                ranks=ranks,
                zero_stage=split.zero_stage,
                sequence_parallel=split.sequence_parallel,
                learning_rate=1e-30,  # no weight moves: every step's gradient is the base model's
            )
            for number, split in enumerate(splits)
        ]
        run_tasks([{"kind": "gradients", "job_files": list(map(str, jobs))}], ranks=ranks, folder=folder / f"r{ranks}")
        for split, job in zip(splits, jobs, strict=True):
            error = parity.worst_error(folder, split.form, job.parent)
            row = {
                "form": split.form.name,
                "ranks": ranks,
                "sequence_parallel": split.sequence_parallel,
                "micro_steps": split.micro_steps,
                "zero": split.zero_stage,
            }
            found.append({**row, "error": error})
    return {"parity_max_rel_error": max(row["error"] for row in found), "parity": found}


def measure_loss(loss_sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Peak memory and processor seconds of both losses."""
    probes = {variant: probe_loss(variant, *loss_sizes) for variant in VARIANTS}
    chunked, plain = probes["chunked"], probes["plain"]
    for one, other in ((chunked.loss, plain.loss), (chunked.gradient_norm, plain.gradient_norm)):
        assert abs(one - other) < 1e-4 * abs(other), "the two losses did not compute the same"
    return {
        "peak_memory_vs_plain_loss": round(chunked.memory_mb / plain.memory_mb, 4),
        "loss": {
            variant: {k: round(v, 4) for k, v in dataclasses.asdict(one).items()} for variant, one in probes.items()
        },
        "loss_sizes": dict(zip(("tokens", "vocabulary", "hidden"), loss_sizes, strict=True)),
    }


def run(sizes: Sizes, console: Console, peers: Path | None = None) -> dict[str, Any]:
    """Measure everything, print tables, return the figures.

    Args:
        sizes: How much.
        console: What is printed to.
        peers: Folder that keeps TRL; None for one under TMPDIR.
    """
    begun = time.perf_counter()
    cores = keep_to_cores(RANKS)
    load_before = os.getloadavg()[0]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="longalign-benchmark-") as name:
        folder = Path(name)
        figures |= compare_strategies(
            sizes.shape, num_sequences=sizes.sequences, turns=sizes.turns, folder=folder / "strategies"
        )
        try:
            figures |= compare_trl(
                sizes.shape,
                num_sequences=sizes.trl_sequences,
                epochs=sizes.trl_epochs,
                held_out=sizes.held_out,
                turns=sizes.trl_turns,
                folder=folder / "trl",
                cache=peers or cache_folder(),
            )
        except PeerError as error:
            figures |= {"vs_trl": None, "trl_skipped": str(error)}
            console.print(f"[bold red]TRL is not measured:[/] {error}", highlight=False)
        figures |= measure_parity(sizes.parity_ranks, folder / "parity")
    figures |= measure_loss(sizes.loss_sizes)
    figures |= {
        "gpu": probe_gpu(),
        "ranks": RANKS,
        "sequences": sizes.sequences,
        "targets": TARGETS,
        "device": machine(),
        "cores": cores,
        "load_before": round(load_before, 2),  # of other work, in cores
        "load_after": round(os.getloadavg()[0], 2),  # of ours too
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    for table in tables.all_tables(figures):
        console.print(table)
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sequences and turns; under three minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="keep TRL there, not under TMPDIR")
    options = parser.parse_args()
    console = Console()
    console.width = max(console.width, 110)  # or figures are cut off where output is no terminal
    figures = run(QUICK if options.quick else FULL, console, options.peers)
    if options.json:
        options.json.write_text(json.dumps({**figures, "quick": options.quick}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
