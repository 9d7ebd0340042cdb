"""Records in groups."""

from __future__ import annotations

import random

import pytest

from longalign_core.errors import DataError
from longalign_core.record_files import RecordRows, RecordWriter, in_groups, write_records
from longalign_core.records import Document, Reject


def test_in_groups_hands_a_list_on_when_it_is_large_enough_and_loses_none():
    words = ["aa", "b", "cccc", "d", "", "e"]
    assert list(in_groups(words, len, 3)) == [["aa", "b"], ["cccc"], ["d", "", "e"]]
    assert list(in_groups([], len, 3)) == []


def test_record_rows_any_row_in_any_order_is_the_record_that_was_written(tmp_path):
    rejects = [Reject(id=str(n), source="books", stage="clean", reason="r", detail="x" * n) for n in range(100)]
    with RecordWriter(tmp_path / "r.parquet", Reject, 7, weigh=lambda one: len(one.detail), enough=200) as writer:
        for reject in rejects:
            writer.write(reject)
    rows = RecordRows(tmp_path / "r.parquet", Reject)
    order = random.Random(0).choices(range(100), k=500)
    assert len(rows) == 100
    assert [rows[row] for row in order] == [rejects[row] for row in order]
    for outside in (-1, 100):
        with pytest.raises(IndexError):
            rows[outside]


def test_record_rows_no_records_are_none(tmp_path):
    write_records(tmp_path / "r.parquet", [], Reject)
    assert len(RecordRows(tmp_path / "r.parquet", Reject)) == 0


def test_record_rows_file_of_other_records_is_refused(tmp_path):
    write_records(tmp_path / "r.parquet", [], Reject)
    with pytest.raises(DataError, match=r"r\.parquet lacks the columns"):
        RecordRows(tmp_path / "r.parquet", Document)
