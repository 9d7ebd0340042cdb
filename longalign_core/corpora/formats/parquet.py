"""Parquet files: one document a row, read in batches of a few megabytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from longalign_core.config.corpus_formats import ParquetCorpus
from longalign_core.corpora.cleaning import reject
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.record_fields import (
    PILE_SET_FIELD,
    Values,
    document_fields,
    document_of_values,
    pile_sets_left_out,
    wanted_fields,
)
from longalign_core.corpora.unpacking import raise_unless_damaged
from longalign_core.records import Reject

SUFFIXES = (".parquet", ".pq")
_BATCH_BYTES = 1 << 20  # stays in the processor's cache until the strings are made
_MAX_BATCH_ROWS = 1_024
_READ_AHEAD_BYTES = 1 << 20
_DAMAGE = (pa.ArrowException, OSError)

_Columns = Mapping[str | None, tuple[str, ...]]
"""Path of names to the column of each field."""


def read(unit: Unit, config: ParquetCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read every row as one document; see `reading.Reader`. The position is the number of rows read.

    Only the columns of the configured fields are read. Of a damaged row group, what comes before the
    damage is kept, and reading goes on with the next group. With `pile_set`, the sets of rows before
    the position are read again to count those left out.
    """
    (file,) = unit.files
    path = file.relative_path
    if not path.lower().endswith(SUFFIXES):
        yield reject(config, path, "other file type", f"expected {' or '.join(SUFFIXES)}")
        return
    with file.open() as stream:
        try:
            # Without a buffer, or with one filled ahead, a whole row group, often a gigabyte, comes into memory.
            parquet = pq.ParquetFile(
                stream, buffer_size=_READ_AHEAD_BYTES, pre_buffer=False, page_checksum_verification=True
            )
        except _DAMAGE as error:
            raise_unless_damaged(error)
            yield reject(config, path, "damaged file", f"not a whole parquet file: {_first_line(error)}")
            return
        columns: _Columns = {field: found for field in wanted_fields(config) if (found := _column(parquet, field))}
        if config.text_field not in columns:
            names = ", ".join(parquet.schema_arrow.names[:20])
            yield reject(config, path, "no text column", f"no column `{config.text_field}` of strings among: {names}")
            return
        yield from _read_groups(parquet, columns, path, config, cursor)


def _read_groups(
    parquet: pq.ParquetFile, columns: _Columns, path: str, config: ParquetCorpus, cursor: Cursor
) -> Iterator[RawDocument | Reject]:
    end = num_left_out = 0
    for group in range(parquet.num_row_groups):
        row_number, end = end, end + parquet.metadata.row_group(group).num_rows
        is_behind = end <= cursor.position
        if is_behind and config.pile_set is None:
            continue
        try:
            for values, pile_set in _rows(parquet, group, columns, config, is_behind):
                row_number += 1
                if pile_set != config.pile_set:
                    num_left_out += 1
                elif row_number > cursor.position:
                    cursor.position = row_number
                    name = f"{path}#{row_number}"
                    yield document_of_values(values, name, name, config)
        except _DAMAGE as error:
            raise_unless_damaged(error)
            if not is_behind:
                cursor.position = end
                where = f"rows {row_number + 1} to {end} are lost: {_first_line(error)}"
                yield reject(config, f"{path}#{row_number + 1}", "damaged row group", where)
    if num_left_out:
        yield pile_sets_left_out(num_left_out, path, config)


def _rows(
    parquet: pq.ParquetFile, group: int, columns: _Columns, config: ParquetCorpus, only_sets: bool
) -> Iterator[tuple[Values, str | None]]:
    """Values of a row group's documents, and the Pile set of each where one is asked for.

    Args:
        parquet: The file.
        group: Number of the row group.
        columns: Those the file has.
        config: The corpus.
        only_sets: Read nothing but the sets.
    """
    about = parquet.metadata.row_group(group)
    row_bytes = max(1, about.total_byte_size // max(1, about.num_rows))
    pile_set = PILE_SET_FIELD if config.pile_set is not None else None
    wanted = (*(None if only_sets else field for field in document_fields(config)), pile_set)
    batches = parquet.iter_batches(
        batch_size=max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES // row_bytes)),
        row_groups=[group],
        columns=list({".".join(columns[field]) for field in wanted if field in columns}),
        use_threads=False,  # shards run side by side already
    )
    for batch in batches:
        absent = (None,) * batch.num_rows
        found = [_strings(batch, columns[field]) if field in columns else absent for field in wanted]
        yield from zip(zip(*found[:-1], strict=True), found[-1], strict=True)


def _column(parquet: pq.ParquetFile, field: str) -> tuple[str, ...] | None:
    """Path of names to the column of a field; None where there is none, or it holds neither strings nor dates."""
    schema = parquet.schema_arrow
    names = (field,) if schema.get_field_index(field) >= 0 else tuple(field.split("."))
    index = schema.get_field_index(names[0])
    if index < 0:
        return None
    kind = schema.field(index).type
    for name in names[1:]:
        if not pt.is_struct(kind) or kind.get_field_index(name) < 0:
            return None
        kind = kind.field(name).type
    if pt.is_dictionary(kind):
        kind = kind.value_type
    return names if _is_text(kind) or pt.is_date(kind) or pt.is_timestamp(kind) else None


def _is_text(kind: pa.DataType) -> bool:
    """Whether it can hold text. Some writers do not mark their strings as such."""
    checks = (pt.is_string, pt.is_large_string, pt.is_string_view, pt.is_binary, pt.is_large_binary)
    return any(check(kind) for check in checks)


def _strings(batch: pa.RecordBatch, names: tuple[str, ...]) -> Sequence[str | None]:
    """Values of a column; None for what is not UTF-8, dates as ISO 8601."""
    column = batch.column(names[0])
    if names[1:]:
        column = pc.struct_field(column, list(names[1:]))
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_text(column.type):
        return [None if value is None else value.isoformat() for value in column.to_pylist()]
    try:
        if not pt.is_string(column.type):
            column = column.cast(pa.large_string())
        # Makes the strings without a scalar object for each, as `to_pylist` does.
        return cast("list[str | None]", column.to_numpy(zero_copy_only=False).tolist())
    except (pa.ArrowException, UnicodeDecodeError):
        return [_decoded(data) for data in column.cast(pa.large_binary()).to_pylist()]


def _decoded(data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
