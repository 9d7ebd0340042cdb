"""The batch plan on disk: which sequence stands where in which step, and what its loss counts.

One parquet row for each placed sequence, in the order of steps, slots and offsets, and `plan.json`,
written last, which says what the plan was made with. Training is a pure function of plan and step.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from longalign_core.errors import DataError, InputError
from longalign_core.loss_scales import Normaliser, step_loss_scales
from longalign_core.plan_rows import COLUMNS, PlanRows, open_writer

PLAN_FILE = "plan.parquet"
_META_FILE = "plan.json"
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMeta:
    """What a plan was made with.

    Attributes:
        strategy: How sequences were put into packs and steps.
        capacity: Tokens a slot holds.
        packs_per_step: Slots of one optimizer step, the empty ones of a last step included.
        alike: Consecutive slots that cost alike; divides packs_per_step.
        epochs: Passes over the data.
        num_steps: Optimizer steps of all epochs together.
        alpha: Loss weight N^-alpha of a target token.
        normaliser: What weights are divided by.
        seed: Seed of every epoch's order.
        z_epoch: For each epoch, the mean over its steps of the sum of N^(1-alpha).
    """

    strategy: str
    capacity: int
    packs_per_step: int
    alike: int
    epochs: int
    num_steps: int
    alpha: float
    normaliser: Normaliser
    seed: int
    z_epoch: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """One sequence in a slot.

    Attributes:
        sequence: Its number in the token store.
        offset: Tokens of the slot that stand before it.
        length: Its tokens.
        targets: Those of them that the model is trained to predict.
    """

    sequence: int
    offset: int
    length: int
    targets: int


@dataclass(frozen=True, slots=True)
class EpochOrder:
    """Where every sequence of one epoch goes.

    Attributes:
        sequences: Sequence numbers in the order of their places, shape (S,).
        slots: Slot of each of them, counted from 0 through the epoch, never falling. Shape (S,).
            Slot s belongs to the epoch's step s // packs_per_step.
    """

    sequences: NDArray[np.integer]
    slots: NDArray[np.integer]

    @classmethod
    def of_packs(cls, packs: Sequence[Sequence[int]]) -> EpochOrder:
        """The order that puts each list of sequence numbers into a slot of its own; a list may be empty."""
        sequences = [sequence for pack in packs for sequence in pack]
        slots = np.repeat(np.arange(len(packs)), [len(pack) for pack in packs])
        return cls(np.array(sequences, dtype=np.int64), slots)


class BatchPlan:
    """A plan opened for reading. Rows are read as steps are asked for.

    Attributes:
        meta: What it was made with.
    """

    def __init__(self, meta: PlanMeta, rows: pq.ParquetFile) -> None:
        self.meta = meta
        self._rows = rows
        # Row groups end with a step, so the smallest step of each says where a step is found.
        column = COLUMNS.get_field_index("step")
        groups = range(rows.metadata.num_row_groups)
        self._first_steps = [rows.metadata.row_group(group).column(column).statistics.min for group in groups]
        self._group = -1
        self._table: dict[str, NDArray[np.integer]] = {}

    @classmethod
    def open(cls, folder: Path) -> BatchPlan:
        """Open the plan in `folder`.

        Raises:
            DataError: The folder holds no whole plan, or one of another schema.
        """
        meta_file, rows_file = folder / _META_FILE, folder / PLAN_FILE
        if not meta_file.is_file() or not rows_file.is_file():
            raise DataError(f"{folder.name} lacks {_META_FILE} or {PLAN_FILE}; run `batches` again")
        try:
            values = orjson.loads(meta_file.read_bytes())
        except orjson.JSONDecodeError as error:
            raise DataError(f"{_META_FILE} in {folder.name} is no whole JSON; run `batches` again") from error
        if (schema := values.pop("schema", None)) != _SCHEMA:
            raise DataError(
                f"the batch plan in {folder.name} has schema {schema}, this version reads {_SCHEMA}; "
                "run `batches` again or use the version that wrote it"
            )
        try:
            rows = pq.ParquetFile(rows_file)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{PLAN_FILE} in {folder.name} is no whole parquet file; run `batches` again") from error
        return cls(PlanMeta(**{**values, "z_epoch": tuple(values["z_epoch"])}), rows)

    @classmethod
    def write(
        cls,
        folder: Path,
        *,
        strategy: str,
        capacity: int,
        packs_per_step: int,
        alike: int,
        alpha: float,
        normaliser: Normaliser,
        seed: int,
        lengths: NDArray[np.integer],
        targets: NDArray[np.integer],
        epochs: Iterable[EpochOrder],
    ) -> BatchPlan:
        """Write a plan, one epoch at a time, and open it.

        Args:
            folder: Where `plan.parquet` and `plan.json` go.
            strategy: How sequences were put into packs and steps.
            capacity: Tokens a slot holds.
            packs_per_step: Slots of one optimizer step.
            alike: Consecutive slots that cost alike.
            alpha: Loss weight N^-alpha of a target token.
            normaliser: What weights are divided by.
            seed: Seed of every epoch's order.
            lengths: Tokens per sequence, shape (S,).
            targets: Target tokens per sequence, shape (S,).
            epochs: The epochs in order. What they leave empty in their last step stays empty.

        Raises:
            InputError: packs_per_step or alike is below 1, or the second does not divide the first.
        """
        check_steps(packs_per_step, alike)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _META_FILE).unlink(missing_ok=True)
        unfinished = folder / f"{PLAN_FILE}.part"
        with open_writer(unfinished) as writer:
            rows = PlanRows(writer, lengths=lengths, targets=targets, packs_per_step=packs_per_step, alpha=alpha)
            for order in epochs:
                rows.write_epoch(order.sequences, order.slots)
        unfinished.replace(folder / PLAN_FILE)
        meta = PlanMeta(
            strategy=strategy,
            capacity=capacity,
            packs_per_step=packs_per_step,
            alike=alike,
            epochs=len(rows.z_epoch),
            num_steps=rows.num_steps,
            alpha=alpha,
            normaliser=normaliser,
            seed=seed,
            z_epoch=tuple(rows.z_epoch),
        )
        unfinished = folder / f"{_META_FILE}.part"
        values = {"schema": _SCHEMA, **dataclasses.asdict(meta)}
        unfinished.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        unfinished.replace(folder / _META_FILE)
        return cls.open(folder)

    def epoch_ends(self) -> list[int]:
        """Steps of the plan up to the end of each epoch."""
        ends: dict[int, int] = {}
        for group in range(self._rows.metadata.num_row_groups):
            table = self._rows.read_row_group(group, columns=["epoch", "step"])
            # A row group lies in one epoch, and rows stand in the order of steps.
            ends[table["epoch"][0].as_py()] = 1 + table["step"][-1].as_py()
        return [ends[epoch] for epoch in sorted(ends)]

    def tokens_until(self, step: int) -> tuple[int, int]:
        """Tokens of the plan's first `step` steps, and those of them that the model is trained to predict."""
        tokens = targets = 0
        for batch in self._rows.iter_batches(columns=["step", "length", "targets"]):
            is_before = batch["step"].to_numpy() < step
            tokens += int(batch["length"].to_numpy()[is_before].sum(dtype=np.int64))
            targets += int(batch["targets"].to_numpy()[is_before].sum(dtype=np.int64))
        return tokens, targets

    def slots(self, step: int) -> tuple[tuple[Placement, ...], ...]:
        """What stands in each of the step's slots, `packs_per_step` of them; an empty slot is ()."""
        _, slots = self._step(step)
        return slots

    def loss_scales(self, step: int) -> tuple[tuple[float, ...], ...]:
        """The factor of each sequence's summed loss, in the shape of `slots(step)`.

        The step's loss is the sum, over all slots of all ranks and accumulation steps, of the factor
        times the sum of the sequence's target-token losses.
        """
        epoch, slots = self._step(step)
        targets = [[placement.targets for placement in slot] for slot in slots]
        return step_loss_scales(targets, self.meta.alpha, self.meta.normaliser, self.meta.z_epoch[epoch])

    def _step(self, step: int) -> tuple[int, tuple[tuple[Placement, ...], ...]]:
        assert 0 <= step < self.meta.num_steps, f"step {step} of {self.meta.num_steps}"
        group = bisect_right(self._first_steps, step) - 1
        if group != self._group:
            table = self._rows.read_row_group(group)
            self._table = {name: table[name].to_numpy() for name in table.column_names}
            self._group = group
        first, last = np.searchsorted(self._table["step"], np.array([step, step + 1], dtype=np.int32))
        slots: list[list[Placement]] = [[] for _ in range(self.meta.packs_per_step)]
        names = ("slot", "sequence", "offset", "length", "targets")
        for slot, *place in zip(*(self._table[name][first:last].tolist() for name in names), strict=True):
            slots[slot].append(Placement(*place))
        return int(self._table["epoch"][first]), tuple(tuple(slot) for slot in slots)


def check_steps(packs_per_step: int, alike: int) -> None:
    """Refuse steps that cannot be filled.

    Raises:
        InputError: A number is below 1, or `alike` does not divide `packs_per_step`.
    """
    for name, value in (("packs_per_step", packs_per_step), ("alike", alike)):
        if value < 1:
            raise InputError(f"batching.{name} is {value}; give a number from 1 up")
    if packs_per_step % alike:
        raise InputError(
            f"batching.alike {alike} does not divide packs_per_step {packs_per_step}; choose one of its divisors"
        )
