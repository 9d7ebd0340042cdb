"""What it takes to open a token store of ten million sequences: seconds, and memory more than before.

    python -m benchmarks.token_store [--sequences N] [--folder FOLDER]

Shards hold few tokens a sequence, so that the folder stays small; opening reads none of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from longalign_core.token_store import Shard, ShardWriter, TokenStore, make_batch, seal, shard_name

_SHARD_SEQUENCES, _BATCH_SEQUENCES = 1 << 20, 1_024
_MOST_TOKENS, _VOCABULARY = 24, 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What opening a store cost a fresh process.

    Attributes:
        seconds: Until lengths and targets can be used.
        cpu_seconds: The same of the processor.
        memory_mb: Memory held more than before, mapped pages included.
        sequences_per_second: Read in random order, one at a time.
        gb: Size of the store on disk, in 10^9 bytes.
    """

    sequences: int
    seconds: float
    cpu_seconds: float
    memory_mb: float
    sequences_per_second: float
    gb: float


def write_synthetic_store(folder: Path, num_sequences: int) -> None:
    """Write a token store of short sequences of random ids; the second half of each is its target."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    for first in range(0, num_sequences, _SHARD_SEQUENCES):
        writer = ShardWriter(folder / shard_name(len(shards)), "uint16")
        of_shard = min(_SHARD_SEQUENCES, num_sequences - first)
        for start in range(0, of_shard, _BATCH_SEQUENCES):
            lengths = draw.integers(2, _MOST_TOKENS, min(_BATCH_SEQUENCES, of_shard - start))
            ids = draw.integers(0, _VOCABULARY, int(lengths.sum()))
            spans = np.column_stack([lengths // 2, lengths]).ravel()
            span_ends = np.arange(1, len(lengths) + 1) * 2
            writer.write_batch(make_batch("uint16", ids, lengths.cumsum(), spans, span_ends))
        shards.append(writer.close())
    seal(folder, "uint16", shards)


def measure_opening(folder: Path) -> Opening:
    """Open the store in `folder` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_open, (folder,))


def _open(folder: Path) -> Opening:
    process = psutil.Process()
    before, start, cpu_start = process.memory_info().rss, time.perf_counter(), time.process_time()
    store = TokenStore.open(folder)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    memory = process.memory_info().rss - before
    asked = np.random.default_rng(1).integers(0, store.num_sequences, 20_000).tolist()
    start = time.perf_counter()
    for number in asked:
        ids, _ = store.sequence(number)
        assert len(ids) == store.lengths[number]
    return Opening(
        sequences=store.num_sequences,
        seconds=round(seconds, 4),
        cpu_seconds=round(cpu_seconds, 4),
        memory_mb=round(memory / 1e6, 2),
        sequences_per_second=round(len(asked) / (time.perf_counter() - start)),
        gb=round(store.num_bytes / 1e9, 3),
    )


def main() -> None:
    """Write a store, open it, say what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the store is written, and stays; a temporary one without")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        write_synthetic_store(folder, chosen.sequences)
        for name, value in asdict(measure_opening(folder)).items():
            print(f"{name:22}{value:>14,}")


if __name__ == "__main__":
    main()
