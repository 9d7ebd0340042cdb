"""Our own plans and token stores in a process of its own: processor seconds, and memory at the most.

Run as `python -m benchmarks.packing_probe plan|open NUMBER FOLDER`; prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.ingest_inputs import samples
from benchmarks.measuring import peak_memory_mb
from longalign_core.batch_plan import BatchPlan, EpochOrder
from longalign_core.batching.cost import CostModel
from longalign_core.batching.packing import pack_first_fit
from longalign_core.batching.strategies import Batching, order_epochs
from longalign_core.token_store import TokenStore, TokenStoreWriter

CAPACITY = 65_536
_TOKENS_OF_STORED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanProbe:
    """What planning one epoch took.

    Attributes:
        first_fit_cpu_seconds: Of sequences to packs alone, by first fit.
        plan_cpu_seconds: Of the epoch's whole order by `balanced`.
        write_cpu_seconds: Of the plan file, rows and weights included.
        plan_peak_mb: Largest resident memory up to the order, imports included.
        peak_mb: The same up to the written file.
    """

    first_fit_cpu_seconds: float
    plan_cpu_seconds: float
    write_cpu_seconds: float
    plan_peak_mb: float
    peak_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenProbe:
    """What opening a token store took.

    Attributes:
        sequences: In it.
        seconds: Wall time, the largest of three openings.
        memory_mb: By which the largest resident memory of the process grew.
    """

    sequences: int
    seconds: float
    memory_mb: float


Found = TypeVar("Found", PlanProbe, OpenProbe)


def lengths_of(number: int, seed: int = 0) -> NDArray[np.int32]:
    """The sample's lengths again and again, in an order of their own where there are more than it has."""
    sample: NDArray[np.int32] = np.load(samples().parent / "packing" / "lengths_100k.npy").astype(np.int32)
    if number <= len(sample):
        return sample[:number]
    lengths = np.resize(sample, number)
    np.random.default_rng(seed).shuffle(lengths)
    return lengths


def batching_of(packs_per_step: int) -> Batching:
    """`balanced`, as the recipes have it."""
    return Batching(
        strategy="balanced",
        capacity=CAPACITY,
        packs_per_step=packs_per_step,
        alike=packs_per_step,
        cost_model=CostModel(),
        seed=0,
    )


def probe_plan(number: int, folder: Path) -> PlanProbe:
    """Plan an epoch of so many sequences in a process of its own."""
    return _probe("plan", number, folder, PlanProbe)


def probe_open(number: int, folder: Path) -> OpenProbe:
    """Write a token store of so many short sequences, and open it in a process of its own."""
    with TokenStoreWriter(folder) as writer:
        tokens, mask = np.arange(_TOKENS_OF_STORED), np.arange(_TOKENS_OF_STORED) > 0
        for _ in range(number):
            writer.append(tokens, mask)
    return _probe("open", number, folder, OpenProbe)


def _probe(what: str, number: int, folder: Path, kind: type[Found]) -> Found:
    command = [sys.executable, "-m", "benchmarks.packing_probe", what, str(number), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)
    if done.returncode:
        raise SystemExit(f"the {what} of {number:,} sequences failed:\n{done.stderr[-2000:]}")
    return kind(**json.loads(done.stdout.splitlines()[-1]))


def measure_plan(number: int, folder: Path) -> PlanProbe:
    """Measure in this process, after a plan of a few sequences, which loads the compiled code."""
    lengths, batching = lengths_of(number), batching_of(8)
    few = lengths_of(1_000)
    _write(few, folder / "warm", next(order_epochs(few, batching, epochs=1)))
    pack_first_fit(few, CAPACITY)
    start = time.process_time()
    pack_first_fit(lengths, CAPACITY)
    first_fit = time.process_time() - start
    start = time.process_time()
    order = next(order_epochs(lengths, batching, epochs=1))
    planned, plan_peak = time.process_time() - start, peak_memory_mb()
    start = time.process_time()
    _write(lengths, folder / "plan", order)
    return PlanProbe(
        first_fit_cpu_seconds=first_fit,
        plan_cpu_seconds=planned,
        write_cpu_seconds=time.process_time() - start,
        plan_peak_mb=plan_peak,
        peak_mb=peak_memory_mb(),
    )


def _write(lengths: NDArray[np.int32], folder: Path, order: EpochOrder) -> None:
    BatchPlan.write(
        folder,
        strategy="balanced",
        capacity=CAPACITY,
        packs_per_step=8,
        alike=8,
        alpha=1.0,
        normaliser="step",
        seed=0,
        lengths=lengths,
        targets=lengths,
        epochs=[order],
    )


def measure_open(number: int, folder: Path) -> OpenProbe:
    """Measure in this process."""
    before, seconds = peak_memory_mb(), []
    for _ in range(3):
        start = time.perf_counter()
        store = TokenStore.open(folder)
        seconds.append(time.perf_counter() - start)
        assert store.num_sequences == number
    return OpenProbe(sequences=number, seconds=max(seconds), memory_mb=peak_memory_mb() - before)


if __name__ == "__main__":
    what, number, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    print(json.dumps(asdict(measure_plan(number, folder) if what == "plan" else measure_open(number, folder))))
