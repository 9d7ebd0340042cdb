"""Lengths of sequences from anyone's file: .npy, text or CSV, parquet."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longalign_core.errors import DataError, InputError

COLUMN = "length"


def read_lengths(path: Path, capacity: int, column: str | None = None) -> NDArray[np.int32]:
    """The lengths in a file, each of which a pack can hold.

    Args:
        path: `.npy` of a one-dimensional integer array; `.txt` with one length a line; `.csv` with one length a
            line or with a heading; `.parquet`.
        capacity: Tokens a pack holds; fits 32 bits.
        column: Where the lengths lie in a parquet file or a CSV file with a heading; None for `length`, or for
            the only column there is.

    Returns:
        Tokens per sequence, shape (S,), values in [1, capacity].

    Raises:
        InputError: The file cannot be read, or holds no whole numbers.
        DataError: There is no length, or one has no token or more than a pack holds.
    """
    readers: dict[str, Callable[[Path, str | None], NDArray[Any]]] = {
        ".npy": _read_npy,
        ".txt": _read_text,
        ".csv": _read_text,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is none of {', '.join(readers)}; save the lengths in one of these forms")
    try:
        lengths = reader(path, column)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); give a file of lengths") from error
    if not len(lengths):
        raise DataError(f"{path} holds no length; give one a sequence")
    _check_range(lengths, capacity, path)
    return lengths.astype(np.int32)


def _check_range(lengths: NDArray[Any], capacity: int, path: Path) -> None:
    for wrong, advice in (
        (lengths < 1, "leave out what has no token"),
        (lengths > capacity, "raise --capacity, or shorten what is longer"),
    ):
        if num_wrong := int(np.count_nonzero(wrong)):
            first = int(np.argmax(wrong))
            more = f" (and {num_wrong - 1:,} more like it)" if num_wrong > 1 else ""
            raise DataError(
                f"sequence {first} of {path.name}, counted from 0, has {lengths[first]} tokens but a pack holds "
                f"1 to {capacity}{more}; {advice}"
            )


def _read_npy(path: Path, column: str | None) -> NDArray[Any]:
    try:
        lengths = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npy file of numbers; save the lengths with numpy.save") from error
    if not isinstance(lengths, np.ndarray):
        raise InputError(f"{path} is no .npy file but an archive of them; save the lengths with numpy.save")
    if lengths.ndim != 1:
        raise InputError(
            f"{path} is no one-dimensional array but has shape {lengths.shape}; save one length a sequence"
        )
    if lengths.dtype.kind not in "iu":
        raise InputError(f"{path} is no array of whole numbers but of {lengths.dtype}; save lengths.astype('int32')")
    return lengths


def _read_parquet(path: Path, column: str | None) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            chosen = _chosen(file.schema_arrow.names, column, path)
            values = file.read(columns=[chosen])[chosen]
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is no whole parquet file; write it again") from error
    if not pa.types.is_integer(values.type):
        raise InputError(f"column {chosen!r} of {path} holds {values.type}, no whole numbers; choose with --column")
    if values.null_count:
        missing = int(np.argmax(values.is_null().to_numpy()))
        raise InputError(f"sequence {missing} of {path.name}, counted from 0, has no length; fill in column {chosen!r}")
    lengths: NDArray[Any] = values.to_numpy()
    return lengths


def _read_text(path: Path, column: str | None) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.csv

    with path.open(encoding="utf-8-sig", errors="replace") as file:
        heading = file.readline().strip()
    names = [name.strip().strip('"') for name in heading.split(",")]
    if not heading:
        raise InputError(f"{path} begins with an empty line; write one length a line")
    has_heading = any(not _is_whole(name) for name in names) and (len(names) > 1 or not _is_number(heading))
    if not has_heading and len(names) > 1:
        raise InputError(f"{path} has {len(names)} numbers a line and no heading; write one length a line")
    if not has_heading:
        names = [COLUMN]
    chosen = _chosen(names, column, path) if has_heading else COLUMN
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=int(has_heading)),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[chosen], column_types={chosen: pa.int64()}, null_values=[]
            ),
        )
    except pa.ArrowInvalid as error:
        raise _wrong_line(path, names, chosen, has_heading, error) from error
    lengths: NDArray[Any] = table[chosen].to_numpy()
    return lengths


def _wrong_line(path: Path, names: list[str], chosen: str, has_heading: bool, error: Exception) -> InputError:
    """Name the first line that holds no whole number; slow, for when reading failed."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file)
        for cells in islice(rows, int(has_heading), None):
            is_right = len(cells) == len(names) and _is_whole(cells[names.index(chosen)])
            if cells and not is_right:
                said = ",".join(cells)[:60]
                return InputError(
                    f"line {rows.line_num} of {path} says {said!r}, no whole number; write one length a line"
                )
    return InputError(f"{path} cannot be read as lengths ({error}); write one length a line")


def _chosen(names: list[str], column: str | None, path: Path) -> str:
    if column is None and len(names) == 1:
        return names[0]
    wanted = column or COLUMN
    if wanted not in names:
        raise InputError(f"{path} has no column {wanted!r}; choose one of {', '.join(names)} with --column")
    return wanted


def _is_whole(text: str) -> bool:
    digits = text.strip().removeprefix("-")
    return digits.isascii() and digits.isdigit() and int(digits) < 2**63


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
