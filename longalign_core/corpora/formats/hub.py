"""Datasets of the Hugging Face hub, streamed shard by shard: one document a row."""

from __future__ import annotations

import gzip
import lzma
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from longalign_core.config.corpus_formats import HubCorpus
from longalign_core.corpora.cleaning import reject
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.record_fields import document_of_row, is_other_pile_set, pile_sets_left_out, wanted_fields
from longalign_core.errors import InputError, SourceError
from longalign_core.records import Reject
from longalign_core.source_files import SourceFile

if TYPE_CHECKING:
    import datasets

BATCH_ROWS = 256
"""Rows converted at a time. A row may be a whole book."""
_LOCATION = re.compile(r"hub:datasets/(?P<id>[^@]+)@(?P<revision>[0-9a-f]{40})")
_UNIT = re.compile(r".*/(?P<index>\d{5,})-of-(?P<num_shards>\d{5,})")


def units(files: Sequence[SourceFile], config: HubCorpus) -> Iterator[Unit | Reject]:
    """One unit for each shard of the split, which is one file of the repository.

    Raises:
        InputError: The dataset, its revision, its configuration or its split is not there.
        SourceError: The hub does not answer.
    """
    num_shards = _open(config).num_shards
    for index in range(num_shards):
        yield Unit(f"{config.split}/{index:05d}-of-{num_shards:05d}", ())


def read(unit: Unit, config: HubCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read every row as one document; see `reading.Reader`. The position is the number of rows read.

    Rows that were read before are fetched again but not converted: the hub's files have no index of
    rows that all of its formats share.

    Raises:
        InputError: The dataset or its text field is not there.
        SourceError: The hub stopped answering.
    """
    match = _UNIT.fullmatch(unit.name)
    assert match is not None, f"{unit.name} is no unit of a hub dataset"
    shard = _open(config).shard(int(match["num_shards"]), int(match["index"]))
    num_rows = num_others = 0
    damage = None
    try:
        for table in _tables(shard, config):
            if num_rows == 0:
                _require_text(table.column_names, config)
            first = min(max(0, cursor.position - num_rows), table.num_rows)
            used = table.select(_columns_used(table.column_names, config))
            if config.pile_set:
                num_others += sum(is_other_pile_set(row, config) for row in used.slice(0, first).to_pylist())
            for number, row in enumerate(used.slice(first).to_pylist(), start=num_rows + first + 1):
                if is_other_pile_set(row, config):
                    num_others += 1
                    continue
                cursor.position = number
                name = f"{unit.name}#{number}"
                yield document_of_row(row, name, f"{config.location}/{name}", config)
            num_rows += table.num_rows
    except _DamageError as error:
        damage = f"after row {num_rows}: {error}"
    if num_others:
        yield pile_sets_left_out(num_others, unit.name, config)
    if damage:
        yield reject(config, unit.name, "broken shard", damage)


def _open(config: HubCorpus) -> datasets.IterableDataset:
    match = _LOCATION.fullmatch(config.location)
    assert match is not None, f"{config.location} has no pinned revision"
    import datasets

    try:
        # Without hf:// a folder of this name here would be read instead, and what the library's own
        # cache holds of another revision where the hub has none: so it gets an empty one.
        with tempfile.TemporaryDirectory() as empty:
            found = datasets.load_dataset(
                f"hf://datasets/{match['id']}",
                name=config.config_name,
                split=config.split,
                revision=match["revision"],
                streaming=True,
                cache_dir=empty,
            )
    except Exception as error:
        raise _explained(error, config) from error
    return found.with_format("arrow")


def _tables(shard: datasets.IterableDataset, config: HubCorpus) -> Iterator[Any]:
    """Arrow tables of a few rows. Arrow, because rows that are skipped must cost no conversion."""
    tables = shard.iter(batch_size=BATCH_ROWS)
    while True:
        try:
            table = next(tables)
        except StopIteration:
            return
        except Exception as error:
            if _is_damage(error):
                raise _DamageError(_said(error)) from error
            raise _explained(error, config) from error
        yield table


class _DamageError(Exception):
    """A file of the dataset is not what the library takes it for."""


def _is_damage(error: Exception) -> bool:
    """Only what surely comes of the data: a failing network must never look like the end of a file."""
    from datasets.exceptions import DatasetGenerationError
    from datasets.table import CastError

    of_the_library = DatasetGenerationError | CastError | TypeError | ValueError
    return isinstance(error, of_the_library | EOFError | gzip.BadGzipFile | zlib.error | lzma.LZMAError)


def _columns_used(columns: Sequence[str], config: HubCorpus) -> list[str]:
    fields = wanted_fields(config)
    used = {*fields, *(field.split(".")[0] for field in fields)}
    return [column for column in columns if column in used]


def _require_text(columns: Sequence[str], config: HubCorpus) -> None:
    if not {config.text_field, config.text_field.split(".")[0]} & set(columns):
        raise InputError(
            f"{config.location} has no field {config.text_field!r}; its fields are {', '.join(columns)}: "
            f"set text_field of corpus {config.name!r} to one of them"
        )


def _explained(error: Exception, config: HubCorpus) -> Exception:
    """What a failure of the library means for the user, in one sentence."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    said = _said(error)
    if isinstance(error, DatasetNotFoundError):
        change = "correct the id or the revision, or give HF_TOKEN the right to read it"
    elif isinstance(error, DataFilesNotFoundError):
        change = "name a dataset with files of data (parquet, JSON lines, text), not one with a loading script"
    elif "Dataset scripts are no longer supported" in said:
        change = "its code is never run: name a dataset whose files are data, such as its parquet conversion"
    elif isinstance(error, ValueError) and ("BuilderConfig" in said or "onfig name is missing" in said):
        change = f"set config_name of corpus {config.name!r} to one of those"
    elif isinstance(error, ValueError) and "split" in said:
        change = f"set split of corpus {config.name!r} to one of those"
    else:
        return SourceError(
            f"{config.location} cannot be read ({type(error).__name__}: {said}); "
            "check the network and HF_HUB_OFFLINE, then run again: what is read is kept"
        )
    return InputError(f"{config.location} cannot be read: {said}; {change}")


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
