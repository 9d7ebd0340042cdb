"""Reading instruction sets: local files, what lies behind a URL, or a dataset of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from longalign_core.config.mixture import InstructionSet
from longalign_core.config.runtime import Runtime
from longalign_core.corpora.formats.json_array import NOT_UTF8, JsonArray, TooLarge
from longalign_core.corpora.markup.chat_html import chat_text
from longalign_core.corpora.unpacking import DAMAGE, open_unpacked, raise_unless_damaged, without_compression
from longalign_core.errors import DataError
from longalign_core.instruct.instruction_rows import DroppedTurns, UnusableError
from longalign_core.instruct.mixture import conversations_of
from longalign_core.instruct.split_conversations import SplitConversations
from longalign_core.records import Conversation, Reject
from longalign_core.source_files import SourceFile, list_files
from longalign_core.sources import source_location

_JSON, _PARQUET = (".jsonl", ".json", ".ndjson"), (".parquet", ".pq")
_BATCH_BYTES = 8 << 20
_HEAD_BYTES = 4_096
_Row = tuple[str, object]


@dataclass(slots=True)
class SetReading:
    """What came up while a set was read.

    Attributes:
        dropped: Turns taken out of conversations that were kept.
        num_joined: Parts of split conversations that were put behind another one.
    """

    dropped: DroppedTurns = field(default_factory=DroppedTurns)
    num_joined: int = 0


def read_set(
    one_set: InstructionSet, reading: SetReading, scratch: Path, runtime: Runtime
) -> Iterator[Conversation | Reject]:
    """The conversations of an instruction set, and what of it gives none.

    A hub dataset is brought here at its locked revision, as plain files: the rows of one ShareGPT
    export are of several types, which no table has. Of a file that breaks off, what comes before is kept.

    Args:
        one_set: The set.
        reading: Filled in.
        scratch: Folder for a file of a moment.
        runtime: Where hub datasets are brought to.

    Raises:
        InputError: The location is not there.
        DataError: It holds no file that can be read.
    """
    files = _files(one_set, runtime)
    rows = (row for file in files for row in _rows(file))
    text_of = _html_text if one_set.markup == "html" else str
    if one_set.split_conversations == "separate":
        yield from conversations_of(rows, one_set, reading.dropped, text_of)
        return
    spool_file = scratch / ".parts.spool"
    with spool_file.open("w+b") as spool:
        parts = SplitConversations(spool)
        yield from conversations_of(rows, one_set, reading.dropped, text_of, parts)
        reading.num_joined = parts.num_joined
    spool_file.unlink()


def _files(one_set: InstructionSet, runtime: Runtime) -> list[SourceFile]:
    listed = list_files(source_location(one_set.location, runtime, one_set.files)).files
    readable = [file for file in listed if without_compression(file.relative_path.lower()).endswith(_JSON + _PARQUET)]
    if not readable:
        raise DataError(
            f"the instruction set {one_set.name!r} holds no JSON or parquet file; name a file or folder with "
            f"{', '.join(_JSON + _PARQUET)}"
        )
    patterns = one_set.files
    chosen = [
        file for file in readable if not patterns or any(fnmatchcase(file.relative_path, one) for one in patterns)
    ]
    if not chosen:
        names = ", ".join(file.relative_path for file in readable[:10])
        raise DataError(
            f"no file of the instruction set {one_set.name!r} matches {', '.join(patterns)}; its files are {names}: "
            "correct mixture.sets.files"
        )
    return chosen


def _html_text(turn: str) -> str:
    try:
        return chat_text(turn)
    except DataError as error:
        raise UnusableError("broken HTML", str(error)) from None


def _rows(file: SourceFile) -> Iterator[_Row]:
    """Name and value of every row of a file; an error in place of what cannot be read."""
    path = file.relative_path
    try:
        if path.lower().endswith(_PARQUET):
            yield from _parquet_rows(file)
            return
        with open_unpacked(file) as stream:
            head = stream.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
        yield from _array_rows(file) if head.startswith(b"[") else _line_rows(file)
    except DAMAGE as error:
        raise_unless_damaged(error)
        yield path, UnusableError("truncated file", "the file breaks off; what came before is kept")


def _array_rows(file: SourceFile) -> Iterator[_Row]:
    with open_unpacked(file) as stream:
        array = JsonArray(stream, 0)
        for number, row in array.items():
            name = f"{file.relative_path}#{number}"
            if isinstance(row, TooLarge):
                yield name, UnusableError("too large", "the object is larger or nested deeper than is read")
            elif _is_marked(row):
                yield name, UnusableError("wrong encoding", "it has bytes that are not UTF-8")
            else:
                yield name, row
    if array.fault:
        yield file.relative_path, UnusableError(*array.fault)


def _is_marked(value: object) -> bool:
    """Whether any text in it has bytes that are not UTF-8."""
    if isinstance(value, str):
        return NOT_UTF8 in value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_is_marked(part) for part in parts)


def _line_rows(file: SourceFile) -> Iterator[_Row]:
    with open_unpacked(file) as stream:
        for number, stored in enumerate(stream, start=1):
            line = stored.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else stored.strip()
            if line == b"{":
                detail = "expected an object a line, or one array of objects"
                yield f"{file.relative_path}#{number}", UnusableError("one object over several lines", detail)
                return
            if not line:
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                row = UnusableError("broken line", f"not JSON: {error.msg} at character {error.pos}")
            yield f"{file.relative_path}#{number}", row


def _parquet_rows(file: SourceFile) -> Iterator[_Row]:
    path = file.relative_path
    with file.open() as stream:
        try:
            parquet = pq.ParquetFile(stream, pre_buffer=False, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise_unless_damaged(error)
            yield path, UnusableError("damaged file", "not a whole parquet file")
            return
        number = end = 0
        for group in range(parquet.num_row_groups):
            about = parquet.metadata.row_group(group)
            number, end = end, end + about.num_rows
            batch_rows = max(1, min(1_024, _BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)))
            try:
                for batch in parquet.iter_batches(batch_rows, row_groups=[group], use_threads=False):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path}#{number}", row
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise_unless_damaged(error)
                detail = f"rows {number + 1} to {end} are lost"
                yield f"{path}#{number + 1}", UnusableError("damaged row group", detail)
