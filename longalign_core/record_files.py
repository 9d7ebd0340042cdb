"""Records to parquet and back, and JSON lines: the only file forms that stages exchange records in.

And records in groups, for work that takes many at once.
"""

from __future__ import annotations

import dataclasses
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from types import UnionType
from typing import Any, Generic, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from longalign_core.errors import DataError
from longalign_core.records import Message

Record = TypeVar("Record")
_ROW_GROUPS_KEPT = 2
_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def record_schema(kind: type[Record]) -> pa.Schema:
    """Arrow schema of a record class: scalars as they are, messages as structs, dicts as JSON text."""
    return pa.schema([(name, _arrow_type(hint)) for name, hint in get_type_hints(kind).items()])


class RecordWriter(Generic[Record]):
    """Writes records to one parquet file that appears under its name only when whole.

    Memory holds one batch. To be used as a context manager; an error leaves no file under the name.
    """

    def __init__(
        self,
        path: Path,
        kind: type[Record],
        batch: int = 256,
        *,
        weigh: Callable[[Record], int] = lambda _: 0,
        enough: int = 1,
    ) -> None:
        """Set up.

        Args:
            path: The file.
            kind: Class of the records.
            batch: Most records of a row group, held in memory.
            weigh: Size of a record.
            enough: A row group ends when its records' sizes come to so much.
        """
        self._weigh, self._enough, self._weight = weigh, enough, 0
        self.num_records = 0
        self._path, self._batch = path, batch
        self._schema = record_schema(kind)
        self._rows: list[dict[str, Any]] = []
        self._unfinished = path.with_suffix(path.suffix + ".part")

    def __enter__(self) -> Self:
        self._unfinished.parent.mkdir(parents=True, exist_ok=True)
        self._file = pq.ParquetWriter(self._unfinished, self._schema, compression="zstd")
        return self

    def write(self, record: Record) -> None:
        """Add a record."""
        self._rows.append(_to_row(record))
        self.num_records += 1
        self._weight += self._weigh(record)
        if len(self._rows) == self._batch or self._weight >= self._enough:
            self._flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._file.close()
        if kind is None:
            self._unfinished.replace(self._path)

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []
            self._weight = 0


def write_records(path: Path, records: Iterable[Record], kind: type[Record], batch: int = 256) -> int:
    """Write records to one parquet file and return how many there were; see `RecordWriter`."""
    with RecordWriter(path, kind, batch) as writer:
        for record in records:
            writer.write(record)
    return writer.num_records


def read_records(
    path: Path, kind: type[Record], batch: int = 256, *, row_groups: Sequence[int] | None = None
) -> Iterator[Record]:
    """Stream the records of a parquet file, or of every parquet file under a folder in name order.

    Args:
        path: The file or folder.
        kind: Class of the records.
        batch: Records held in memory.
        row_groups: Of a single file, those to read, rising; None for all.

    Raises:
        DataError: The path holds no parquet file, or one that is not of this record class.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path.name} holds no parquet file; expected {kind.__name__} records")
    hints = get_type_hints(kind)
    for file in files:
        # Without buffering ahead, which would hold the compressed file by and by.
        parquet = pq.ParquetFile(file, pre_buffer=False)
        _refuse_other_columns(file, parquet, kind, hints)
        for rows in parquet.iter_batches(batch_size=batch, row_groups=row_groups, columns=list(hints)):
            for row in rows.to_pylist():
                yield _from_row(row, kind, hints)


class RecordRows(Generic[Record]):
    """Records of one parquet file by row number. Memory holds two row groups; threads may share it."""

    def __init__(self, path: Path, kind: type[Record]) -> None:
        """Open the file; only its index is read.

        Raises:
            DataError: It is not of this record class.
        """
        self._file = pq.ParquetFile(path, pre_buffer=False)
        self._kind, self._hints = kind, get_type_hints(kind)
        _refuse_other_columns(path, self._file, self._kind, self._hints)
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._ends = list(accumulate(sizes))
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, row: int) -> Record:
        if not 0 <= row < len(self):
            raise IndexError(row)
        group = bisect_right(self._ends, row)
        with self._lock:
            table = self._groups.pop(group, None)
            if table is None:
                table = self._file.read_row_group(group, columns=list(self._hints))
            self._groups[group] = table
            if len(self._groups) > _ROW_GROUPS_KEPT:
                self._groups.popitem(last=False)
        offset = row - self._ends[group] + table.num_rows
        (values,) = table.slice(offset, 1).to_pylist()
        return _from_row(values, self._kind, self._hints)


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON lines, UTF-8, whole or not at all. Returns how many."""
    unfinished = path.with_suffix(path.suffix + ".part")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    num_rows = 0
    with unfinished.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            num_rows += 1
    unfinished.replace(path)
    return num_rows


def in_groups(records: Iterable[Record], size_of: Callable[[Record], int], enough: int) -> Iterator[list[Record]]:
    """Records in lists, in order; a list is handed on when its sizes come to `enough`."""
    group: list[Record] = []
    size = 0
    for record in records:
        group.append(record)
        size += size_of(record)
        if size >= enough:
            yield group
            group, size = [], 0
    if group:
        yield group


def _refuse_other_columns(file: Path, parquet: pq.ParquetFile, kind: type[Any], hints: dict[str, Any]) -> None:
    if missing := set(hints) - set(parquet.schema_arrow.names):
        raise DataError(
            f"{file.name} lacks the columns {sorted(missing)} of {kind.__name__}; "
            "it was written by another version: run the stage again"
        )


def _arrow_type(hint: Any) -> pa.DataType:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return _MESSAGES if inner is Message else pa.list_(_arrow_type(inner))
    if get_origin(hint) is dict:
        return pa.string()
    return _SCALARS.get(hint, pa.string())


def _to_row(record: Any) -> dict[str, Any]:
    row = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, dict):
            value = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        elif isinstance(value, tuple) and value and isinstance(value[0], Message):
            value = [{"role": message.role, "content": message.content} for message in value]
        row[field.name] = value
    return row


def _from_row(row: dict[str, Any], kind: type[Record], hints: dict[str, Any]) -> Record:
    for name, value in row.items():
        origin = get_origin(hints[name])
        if origin is dict:
            row[name] = orjson.loads(value)
        elif origin is tuple and value is not None:
            is_message = get_args(hints[name])[0] is Message
            row[name] = tuple(Message(**item) if is_message else item for item in value)
    return kind(**row)
