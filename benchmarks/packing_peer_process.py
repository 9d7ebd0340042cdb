"""One peer's packer over given lengths, called as its trainer calls it, in a process of its own.

Run as `python -m benchmarks.packing_peer_process NAME FOLDER LENGTHS.npy CAPACITY OUT.npz`; FOLDER is what pip
installed the peer to. Prints JSON: `pack_cpu_seconds`, `plan_cpu_seconds`, `peak_mb`.
"""

from __future__ import annotations

import importlib
import json
import logging
import queue
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import peak_memory_mb

Lengths = NDArray[np.int32]
Packs = list[list[int]]
"""Lengths of the sequences in each pack."""
Packer = Callable[[Lengths, int], tuple[Packs, float, float]]
"""Lengths and capacity to packs, processor seconds of packing, and of all that the trainer does with it."""


def pack_trl(lengths: Lengths, capacity: int) -> tuple[Packs, float, float]:
    """`pack_dataset` as `SFTTrainer` calls it: `datasets.map` with its batches of 1000 rows."""
    return _pack_trl(lengths, capacity, {})


def pack_trl_globally(lengths: Lengths, capacity: int) -> tuple[Packs, float, float]:
    """The same with all rows in one batch, which a user can ask of `datasets.map`."""
    return _pack_trl(lengths, capacity, {"batch_size": len(lengths)})


def pack_axolotl(lengths: Lengths, capacity: int) -> tuple[Packs, float, float]:
    """`MultipackBatchSampler` with its configuration's defaults; a process more would hide processor seconds."""
    from torch.utils.data import RandomSampler

    sampler_class = importlib.import_module("axolotl.utils.samplers.multipack").MultipackBatchSampler

    def make(some: Lengths) -> Any:
        return sampler_class(
            RandomSampler(range(len(some))),
            batch_size=1,
            batch_max_len=capacity,
            lengths=some,
            group_size=100_000,
            bin_size=200,
            drop_last=True,
            num_processes=1,
        )

    make(lengths[:1000]).generate_batches()  # compiles
    start = time.process_time()
    make(lengths).generate_batches()
    packing = time.process_time() - start
    start = time.process_time()
    sampler = make(lengths)
    len(sampler)  # its trainer asks for it, and it packs again to estimate it
    batches = list(sampler)
    planning = time.process_time() - start
    return [lengths[pack].tolist() for batch in batches for pack in batch], packing, planning


def pack_llama_factory(lengths: Lengths, capacity: int) -> tuple[Packs, float, float]:
    """`greedy_knapsack` for every 1000 examples, as its packing processor does inside `datasets.map`."""
    _hollow("llamafactory", "llamafactory.data", "llamafactory.data.processor")
    greedy_knapsack = importlib.import_module("llamafactory.data.processor.processor_utils").greedy_knapsack
    rows = lengths.tolist()
    start = time.process_time()
    groups = (rows[first : first + 1000] for first in range(0, len(rows), 1000))
    packs = [pack for group in groups for pack in greedy_knapsack(group, capacity)]
    seconds = time.process_time() - start
    return packs, seconds, seconds


def pack_swift(lengths: Lengths, capacity: int) -> tuple[Packs, float, float]:
    """What `PackingDataset` has its one worker do: `binpacking` over 1000 more rows at a time."""
    _hollow("swift", "swift.dataset")
    # Named in its imports, and used by nothing that is called here.
    _placeholder("swift.template", MaxLengthError=ValueError)
    unused = dict.fromkeys(("get_external_files", "import_external_file", "is_dist", "is_master", "split_list"))
    _placeholder("swift.utils", get_logger=logging.getLogger, **unused)
    dataset = importlib.import_module("swift.dataset.packing").PackingDataset
    found: queue.SimpleQueue[tuple[int, list[list[tuple[int, int]]], int]] = queue.SimpleQueue()
    rows = lengths.tolist()
    start = time.process_time()
    dataset.create_packed_idx(0, 0, rows, found, capacity, "binpack")
    seconds = time.process_time() - start
    groups = iter(found.get, (0, [], -1))
    return [[length for _, length in pack] for _, packs, _ in groups for pack in packs], seconds, seconds


PACKERS: dict[str, Packer] = {
    "trl": pack_trl,
    "trl, all rows at once": pack_trl_globally,
    "axolotl": pack_axolotl,
    "llama-factory": pack_llama_factory,
    "ms-swift": pack_swift,
}


def _pack_trl(lengths: Lengths, capacity: int, map_kwargs: dict[str, Any]) -> tuple[Packs, float, float]:
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    pack_dataset = importlib.import_module("trl.data_utils").pack_dataset
    rows = [_rows_of_nulls(lengths[first : first + 10_000]) for first in range(0, len(lengths), 10_000)]
    dataset = datasets.Dataset(pa.table({"input_ids": pa.chunked_array(rows)}))
    start = time.process_time()
    packed = pack_dataset(dataset, capacity, "bfd", map_kwargs)
    seconds = time.process_time() - start
    return packed.with_format(None)["seq_lengths"][:], seconds, seconds


def _rows_of_nulls(lengths: Lengths) -> Any:
    """Rows of so many tokens, which take no memory: the least that its copying of tokens can cost."""
    import pyarrow as pa

    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return pa.ListArray.from_arrays(ends.astype(np.int32), pa.nulls(int(ends[-1])))


def _hollow(*names: str) -> None:
    """Let packages' modules be imported without what their `__init__` imports."""
    for name in names:
        package = ModuleType(name)
        package.__path__ = [str(Path(sys.path[0], *name.split(".")))]
        sys.modules[name] = package


def _placeholder(name: str, **attributes: object) -> None:
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


def _flat(packs: Sequence[Iterable[int]], num_sequences: int) -> Lengths:
    return np.fromiter(chain.from_iterable(packs), dtype=np.int32, count=num_sequences)


def main(name: str, folder: str, lengths_file: str, capacity: str, out_file: str) -> None:
    """Pack, save `lengths` by pack and `counts` of each pack, and print the times."""
    sys.path.insert(0, folder)
    packs, packing, planning = PACKERS[name](np.load(lengths_file), int(capacity))
    counts = np.array([len(pack) for pack in packs], dtype=np.int64)
    np.savez(out_file, lengths=_flat(packs, int(counts.sum())), counts=counts)
    times = {"pack_cpu_seconds": packing, "plan_cpu_seconds": planning, "peak_mb": peak_memory_mb()}
    print(json.dumps(times))


if __name__ == "__main__":
    main(*sys.argv[1:])
