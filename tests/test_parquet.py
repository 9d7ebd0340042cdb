import datetime
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longalign_core.source_files import SourceFile
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw

SETS = ("ArXiv", "Books3", "ArXiv", "Github", "ArXiv", "Books3", "Books3")


def parquet(columns, **options) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


def pile() -> bytes:
    rows = [{"pile_set_name": name, "size": number} for number, name in enumerate(SETS)]
    return parquet({"text": [f"row {number}" for number in range(1, 8)], "meta": rows}, row_group_size=2)


def found(data: bytes, path: str = "a.parquet", **fields):
    documents, rejects = read_all([in_memory(path, data)], corpus("parquet", **fields))
    return documents, [(one.id, one.reason) for one in rejects]


def test_parquet_reader_rows_become_documents_with_their_fields():
    data = parquet(
        {
            "text": ["first", "second", None],
            "url": ["http://a", None, "http://c"],
            "timestamp": [datetime.datetime(2019, 4, 25, 12, 57, 54), None, None],
            "title": [5, 6, 7],
        }
    )
    documents, rejects = found(data)
    assert [(one.id, one.text, one.url, one.created, one.title) for one in documents] == [
        ("sample:a.parquet#1", "first", "http://a", "2019-04-25T12:57:54", None),
        ("sample:a.parquet#2", "second", None, None, None),
    ]
    assert rejects == [("sample:a.parquet#3", "no text")]


def test_parquet_reader_dots_lead_into_structs():
    rows = [{"body": "inner", "about": {"licence": "MIT"}}, None, {"body": "other", "about": None}]
    documents, rejects = found(
        parquet({"record": rows}), text_field="record.body", licence_field="record.about.licence"
    )
    assert [(one.text, one.licence) for one in documents] == [("inner", "MIT"), ("other", None)]
    assert rejects == [("sample:a.parquet#2", "no text")]


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet_reader_every_arrow_form_of_text_is_read(kind):
    plain = pa.array(["one", "二", "one"])
    column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
    assert [one.text for one in found(parquet({"text": column}))[0]] == ["one", "二", "one"]


def test_parquet_reader_bytes_that_are_not_utf8_lose_one_row():
    documents, rejects = found(parquet({"text": pa.array([b"one", "二".encode("gb18030"), b"three"])}))
    assert [one.text for one in documents] == ["one", "three"]
    assert rejects == [("sample:a.parquet#2", "no text")]


@pytest.mark.parametrize("pile_set", [None, "ArXiv", "Github", "Enron"])
def test_parquet_reader_going_on_at_any_position_gives_the_rest(pile_set):
    config = corpus("parquet", pile_set=pile_set)
    files = [in_memory("a.parquet", pile())]
    whole = list(read_raw(files, config))
    num_kept = 7 if pile_set is None else SETS.count(pile_set)
    assert len(whole) == num_kept + (pile_set is not None)
    for index, (_, position) in enumerate(whole[:num_kept]):
        assert list(read_raw(files, config, position=position)) == whole[index + 1 :]


def test_parquet_reader_pile_set_keeps_its_rows_and_counts_the_others_once():
    documents, rejects = read_all([in_memory("a.parquet", pile())], corpus("parquet", pile_set="ArXiv"))
    assert [one.text for one in documents] == ["row 1", "row 3", "row 5"]
    assert [(one.reason, one.detail) for one in rejects] == [
        ("other Pile sets left out", "4 rows that are not of 'ArXiv'")
    ]


@pytest.mark.parametrize(
    ("data", "path", "reason"),
    [
        (b"PAR1", "a.parquet", "damaged file"),
        (pile()[:-9], "a.parquet", "damaged file"),
        (b"text\nrow", "a.csv", "other file type"),
        (parquet({"body": ["x"]}), "a.parquet", "no text column"),
        (parquet({"text": [{"a": "x"}]}), "a.parquet", "no text column"),
    ],
)
def test_parquet_reader_file_that_cannot_be_read_is_rejected_once(data, path, reason):
    assert found(data, path) == ([], [(f"sample:{path}", reason)])


def test_parquet_reader_damaged_row_group_loses_no_other():
    data = bytearray(parquet({"text": [f"{number} " * 2_000 for number in range(6)]}, row_group_size=2))
    start = pq.read_metadata(io.BytesIO(data)).row_group(1).column(0).data_page_offset
    data[start : start + 64] = b"\xff" * 64
    documents, rejects = found(bytes(data))
    assert [one.id for one in documents] == [f"sample:a.parquet#{number}" for number in (1, 2, 5, 6)]
    assert rejects == [("sample:a.parquet#3", "damaged row group")]


def test_parquet_reader_failing_disk_is_not_taken_for_damage():
    class Failing(io.BytesIO):
        def read(self, *_):
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read_all([SourceFile("a.parquet", 10, lambda: Failing(pile()))], corpus("parquet"))
