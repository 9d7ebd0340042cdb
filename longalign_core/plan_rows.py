"""The rows of a batch plan: an epoch's order laid out in columns and written in groups of whole steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from longalign_core.loss_scales import sequence_weights

COLUMNS = pa.schema(
    [
        ("epoch", pa.int32()),
        ("step", pa.int32()),
        ("slot", pa.int32()),
        ("offset", pa.int32()),
        ("sequence", pa.int64()),
        ("length", pa.int32()),
        ("targets", pa.int32()),
    ]
)
_ROWS_PER_GROUP = 100_000
# What hardly repeats is stored as differences: with dictionaries the file is larger by 40 % and slower to read.
_DIFFERENCES = {"offset": "DELTA_BINARY_PACKED", "sequence": "DELTA_BINARY_PACKED"}


def open_writer(path: Path) -> pq.ParquetWriter:
    """A writer of `COLUMNS`."""
    return pq.ParquetWriter(
        path,
        COLUMNS,
        compression="zstd",
        use_dictionary=[name for name in COLUMNS.names if name not in _DIFFERENCES],
        column_encoding=_DIFFERENCES,
    )


class PlanRows:
    """Writes the rows of a plan, an epoch at a time, holding one row group besides what it is given.

    Args:
        writer: From `open_writer`.
        lengths: Tokens per sequence, shape (S,).
        targets: Target tokens per sequence, shape (S,).
        packs_per_step: Slots of one optimizer step.
        alpha: Loss weight N^-alpha of a target token.

    Attributes:
        num_steps: Optimizer steps written so far.
        z_epoch: For each epoch, the mean over its steps of the sum of N^(1-alpha).
    """

    def __init__(
        self,
        writer: pq.ParquetWriter,
        *,
        lengths: NDArray[np.integer],
        targets: NDArray[np.integer],
        packs_per_step: int,
        alpha: float,
    ) -> None:
        self.num_steps = 0
        self.z_epoch: list[float] = []
        self._writer = writer
        self._lengths = lengths
        self._targets = targets
        self._packs_per_step = packs_per_step
        self._alpha = alpha

    def write_epoch(self, sequences: NDArray[np.integer], slots: NDArray[np.integer]) -> None:
        """Write an epoch.

        Args:
            sequences: Sequence numbers in the order of their places, shape (S,), at least one.
            slots: Slot of each of them, from 0, never falling; no step is without one. Shape (S,).
        """
        assert len(sequences), "an epoch has at least one sequence"
        num_steps = int(slots[-1]) // self._packs_per_step + 1
        filled_steps, weight_sums = 0, []
        for rows in _row_groups(slots, self._packs_per_step):
            steps = slots[rows] // self._packs_per_step
            filled_steps += 1 + int(np.count_nonzero(np.diff(steps)))
            targets = self._targets[sequences[rows]]
            # Of what the epoch places, for the last one of a number of tokens holds only some sequences.
            weight_sums.append(float(sequence_weights(targets, self._alpha).sum()))
            self._write_group(steps, slots[rows], sequences[rows], targets)
        assert filled_steps == num_steps, "every step has a sequence, and slots never fall"
        self.num_steps += num_steps
        self.z_epoch.append(math.fsum(weight_sums) / num_steps)

    def _write_group(
        self,
        steps: NDArray[np.integer],
        slots: NDArray[np.integer],
        sequences: NDArray[np.integer],
        targets: NDArray[np.integer],
    ) -> None:
        lengths = self._lengths[sequences]
        columns = {
            "epoch": np.full(len(sequences), len(self.z_epoch)),
            "step": steps + self.num_steps,
            "slot": slots % self._packs_per_step,
            "offset": _offsets(lengths, slots),
            "sequence": sequences,
            "length": lengths,
            "targets": targets,
        }
        arrays = [pa.array(columns[field.name].astype(field.type.to_pandas_dtype())) for field in COLUMNS]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=COLUMNS), row_group_size=len(sequences))


def _row_groups(slots: NDArray[np.integer], packs_per_step: int) -> Iterator[slice]:
    """Rows of an epoch in groups that end with a step, so that one group holds all of a step."""
    start = 0
    while start < len(slots):
        wanted = min(start + _ROWS_PER_GROUP, len(slots))
        last_of_step = slots[wanted - 1] // packs_per_step * packs_per_step + (packs_per_step - 1)
        # In the slots' own type, or the search would first copy all of them into a wider one.
        end = int(np.searchsorted(slots, slots.dtype.type(last_of_step), side="right"))
        yield slice(start, end)
        start = end


def _offsets(lengths: NDArray[np.integer], slots: NDArray[np.integer]) -> NDArray[np.int64]:
    """Tokens that stand before each sequence in its slot; slots never fall. Shape (S,)."""
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    is_first = np.diff(slots, prepend=slots[0] - 1) > 0
    starts: NDArray[np.int64] = before[is_first][np.cumsum(is_first) - 1]
    return before - starts
