"""What a scorecard looks back on: figures of the documents, sequences, packs and training of a run.

Each reader takes folders as stages leave them, and gives None or nothing where there are none: a
checkpoint trained elsewhere has verdicts but no packs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
from numpy.typing import NDArray

from longalign_core.errors import DataError
from longalign_core.record_files import read_records
from longalign_core.records import Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusShare:
    """What one corpus gave to the drawn documents."""

    source: str
    num_documents: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSequences:
    """The token store's sequences.

    Attributes:
        lengths: Tokens per sequence, shape (S,).
        num_targets: Tokens that the loss counts.
        num_cut: Tokens that shortening took away.
    """

    lengths: NDArray[np.int64]
    num_targets: int
    num_cut: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """The batch plan as packs, empty slots left out.

    Attributes:
        capacity: Tokens a pack holds.
        packs: Lengths of the sequences in each of the first packs, for the picture.
        num_packs: Non-empty packs of all epochs.
        utilisation: Tokens ÷ (capacity × non-empty packs).
        idle: By number of ranks, the share of their time that they wait for one another.
        ess: Evenness of the sequences' weights; 1 when all weigh the same.
        note: What the plan's report has to say; may be empty.
        meta: What the plan was made with, as plan.json has it.
    """

    capacity: int
    packs: tuple[tuple[int, ...], ...]
    num_packs: int
    utilisation: float
    idle: dict[str, float]
    ess: float
    note: str
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCurve:
    """Optimizer steps with their loss. Shapes (steps,)."""

    steps: NDArray[np.int64]
    losses: NDArray[np.float64]
    seconds: float
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectCount:
    """How many records a stage left out for one reason."""

    stage: str
    reason: str
    count: int


def expect_files(folder: Path, *names: str) -> None:
    """Make sure that a folder holds what its stage writes.

    Raises:
        DataError: A file is missing.
    """
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise DataError(f"{folder.name} lacks {', '.join(missing)}, which the scorecard needs; run its stage again")


def corpus_shares(folder: Path) -> tuple[CorpusShare, ...]:
    """Documents and tokens by corpus, in name order."""
    table = _columns(folder / "documents.parquet", ["source", "num_tokens"])
    documents: Counter[str] = Counter(table["source"])
    tokens: Counter[str] = Counter()
    for source, count in zip(table["source"], table["num_tokens"], strict=True):
        tokens[source] += count or 0
    return tuple(
        CorpusShare(source=source, num_documents=documents[source], num_tokens=tokens[source])
        for source in sorted(documents)
    )


def training_sequences(folder: Path) -> TrainingSequences:
    """Lengths of the encoded sequences."""
    table = _columns(folder / "sequences.parquet", ["length", "targets", "cut_tokens"])
    return TrainingSequences(
        lengths=np.array(table["length"], dtype=np.int64),
        num_targets=int(sum(table["targets"])),
        num_cut=int(sum(table["cut_tokens"])),
    )


def packing(folder: Path, max_sequences_shown: int = 1200, max_packs_shown: int = 48) -> Packing:
    """The plan's packs; so many of the first that a picture can show them."""
    expect_files(folder, "plan.json", "plan.parquet", "report.json")
    meta = orjson.loads((folder / "plan.json").read_bytes())
    report = orjson.loads((folder / "report.json").read_bytes())
    rows = pq.read_table(folder / "plan.parquet", columns=["epoch", "step", "slot", "length"])
    places = np.stack([rows.column(name).to_numpy() for name in ("epoch", "step", "slot")])
    lengths = rows.column("length").to_numpy().astype(np.int64)
    if not len(lengths):
        raise DataError(f"the batch plan in {folder.name} holds no sequence; check the mixture it was made from")
    # Rows stand in the order of steps and slots, so a pack ends where the place changes.
    starts = np.flatnonzero(np.any(places[:, 1:] != places[:, :-1], axis=0)) + 1
    bounds = [0, *starts.tolist(), len(lengths)]
    shown: list[tuple[int, ...]] = []
    for start, end in pairwise(bounds):
        if shown and (len(shown) == max_packs_shown or end > max_sequences_shown):
            break
        shown.append(tuple(lengths[start:end].tolist()))
    num_packs = len(bounds) - 1
    return Packing(
        capacity=int(meta["capacity"]),
        packs=tuple(shown),
        num_packs=num_packs,
        utilisation=float(lengths.sum() / (int(meta["capacity"]) * num_packs)),
        idle=report["idle"],
        ess=report["ess"],
        note=report["note"],
        meta=meta,
    )


def training_curve(folder: Path) -> TrainingCurve:
    """The loss of every optimizer step."""
    table = _columns(folder / "metrics.parquet", ["step", "loss", "seconds", "tokens"])
    return TrainingCurve(
        steps=np.array(table["step"], dtype=np.int64),
        losses=np.array(table["loss"], dtype=np.float64),
        seconds=float(sum(table["seconds"])),
        num_tokens=int(sum(table["tokens"])),
    )


def reject_counts(folders: Iterable[Path]) -> tuple[RejectCount, ...]:
    """Records left out by stage and reason, the most frequent first within a stage."""
    counts: Counter[tuple[str, str]] = Counter()
    for folder in folders:
        if (folder / "rejects.parquet").is_file():
            counts.update((reject.stage, reject.reason) for reject in read_records(folder / "rejects.parquet", Reject))
    order = sorted(counts, key=lambda key: (key[0], -counts[key], key[1]))
    return tuple(RejectCount(stage=stage, reason=reason, count=counts[stage, reason]) for stage, reason in order)


def _columns(file: Path, names: list[str]) -> dict[str, list[Any]]:
    expect_files(file.parent, file.name)
    columns: dict[str, list[Any]] = pq.read_table(file, columns=names).to_pydict()
    return columns
