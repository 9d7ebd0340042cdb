"""Anyone's lengths: every form that is read, and one clear sentence for all that is not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longalign_core.batching.lengths_file import read_lengths
from longalign_core.errors import DataError, InputError

LENGTHS = [5, 1, 100, 42]


@pytest.mark.parametrize(
    ("name", "text", "column"),
    [
        ("a.txt", "5\n1\n100\n42\n", None),
        ("a.txt", "5\r\n1\r\n\r\n100\r\n42", None),
        ("a.csv", "5\n1\n100\n42\n", None),
        ("a.csv", "length\n5\n1\n100\n42\n", None),
        ("a.csv", "tokens\n5\n1\n100\n42\n", None),
        ("a.csv", "name,length\na,5\nb,1\nc,100\nd,42\n", None),
        ("a.csv", '"name","n tokens"\n"a,b",5\nb,1\nc,100\nd,42\n', "n tokens"),
        ("A.CSV", "length\n5\n1\n100\n42\n", "length"),
        # With the mark that spreadsheets put first.
        ("a.txt", "\ufeff5\n1\n100\n42\n", None),
        ("a.csv", "\ufefflength,name\n5,a\n1,b\n100,c\n42,d\n", None),
    ],
)
def test_read_text_gives_the_lengths(tmp_path, name, text, column):
    (tmp_path / name).write_text(text)
    assert read_lengths(tmp_path / name, 100, column).tolist() == LENGTHS


@pytest.mark.parametrize("kind", ["int32", "uint16", "int64", ">i8"])
def test_read_npy_any_whole_numbers(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.array(LENGTHS, dtype=kind))
    assert read_lengths(tmp_path / "a.npy", 100).tolist() == LENGTHS


def test_read_parquet_takes_the_column_length_or_the_one_named(tmp_path):
    pq.write_table(pa.table({"id": ["a", "b", "c", "d"], "length": LENGTHS, "n": [9, 9, 9, 9]}), tmp_path / "a.parquet")
    assert read_lengths(tmp_path / "a.parquet", 100).tolist() == LENGTHS
    assert read_lengths(tmp_path / "a.parquet", 100, "n").tolist() == [9] * 4


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 0, 5, 0], r"sequence 1 of a\.npy, counted from 0, has 0 tokens .* \(and 1 more like it\)"),
        ([3, 7, -2], "sequence 2 of .* has -2 tokens"),
        ([3, 101, 5], r"sequence 1 of .* has 101 tokens but a pack holds 1 to 100; raise --capacity"),
        ([], "holds no length"),
        ([2**63 + 5], f"has {2**63 + 5} tokens"),
    ],
)
def test_read_length_out_of_range_names_the_sequence(tmp_path, lengths, message):
    kind = "uint64" if max(lengths, default=0) > 2**62 else "int64"
    np.save(tmp_path / "a.npy", np.array(lengths, dtype=kind))
    with pytest.raises(DataError, match=message):
        read_lengths(tmp_path / "a.npy", 100)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1.0, 2.0]), "whole numbers but of float64"),
        (np.array([True]), "whole numbers but of bool"),
        (np.array(["7"]), "whole numbers but of <U1"),
        (np.ones((2, 3), dtype=int), r"shape \(2, 3\)"),
        (np.array(7), r"shape \(\)"),
        (np.array([7, None], dtype=object), r"no \.npy file of numbers"),
    ],
)
def test_read_npy_of_something_else_is_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=message):
        read_lengths(tmp_path / "a.npy", 100)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "5\nabc\n7\n", "line 2 of .* says 'abc'"),
        ("a.txt", "5\n7.5\n", r"line 2 of .* says '7\.5'"),
        ("a.txt", "1.5\n7\n", r"line 1 of .* says '1\.5'"),
        ("a.txt", "5\n99999999999999999999\n", "line 2 of .* says '99999999999999999999'"),
        ("a.csv", "name,length\na,5\nb,\n", "line 3 of .* says 'b,'"),
        ("a.csv", "name,tokens\na,5\n", "no column 'length'; choose one of name, tokens with --column"),
        ("a.csv", "1,2\n3,4\n", "2 numbers a line and no heading"),
        ("a.csv", "1\n3,4\n", "line 2 of .* says '3,4'"),
        ("a.txt", "", "begins with an empty line"),
        ("a.npy", "5\n7\n", r"no \.npy file"),
        ("a.parquet", "5\n7\n", "no whole parquet file"),
        ("a.json", "[5]", r"is none of \.npy, \.txt, \.csv, \.parquet"),
    ],
)
def test_read_text_that_holds_no_lengths_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_lengths(tmp_path / name, 100)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.5]), "holds double, no whole numbers"),
        (pa.array([["a"]]), "no whole numbers"),
        (pa.array([4, None], pa.int32()), "sequence 1 of .* has no length"),
    ],
)
def test_read_parquet_of_something_else_is_refused(tmp_path, column, message):
    pq.write_table(pa.table({"length": column}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        read_lengths(tmp_path / "a.parquet", 100)


def test_read_missing_file_or_folder_is_refused(tmp_path):
    (tmp_path / "folder.npy").mkdir()
    for name in ("none.npy", "none.txt", "none.parquet", "folder.npy"):
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read_lengths(tmp_path / name, 100)
