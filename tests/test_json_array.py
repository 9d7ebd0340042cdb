import gzip
import json

import pytest
from backports import zstd

from longalign_core.corpora.formats.json_array import MAX_DEPTH, MAX_OBJECT_BYTES
from longalign_core.source_files import list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw

ROWS = [{"id": number, "title": f"标题{number}", "content": f"正文 {number} " * 3} for number in range(1, 6)]


def array(*rows) -> bytes:
    return json.dumps(rows, ensure_ascii=False).encode()


def found(data: bytes, path: str = "a.json", **fields):
    documents, rejects = read_all([in_memory(path, data)], corpus("json_array", **fields))
    return [one.id.partition("#")[2] for one in documents], [(one.id, one.reason) for one in rejects]


def test_json_array_reader_real_wudao_sample_gives_every_object(test_data):
    files = list_files(test_data / "corpora" / "wudao").files
    documents, rejects = read_all(files, corpus("json_array", name="wudao", language="zh"))
    with files[0].open() as stored:
        rows = json.load(stored)
    assert rejects == []
    assert [one.title for one in documents] == [row["title"] for row in rows]
    assert documents[0].id == "wudao:part-0000.json#1"
    assert documents[0].text.split() == rows[0]["content"].split()


@pytest.mark.parametrize("pile_set", [None, "ArXiv"])
def test_json_array_reader_going_on_at_any_position_gives_the_rest(pile_set):
    rows = [{**row, "meta": {"pile_set_name": "ArXiv" if row["id"] % 2 else "Books3"}} for row in ROWS]
    config = corpus("json_array", pile_set=pile_set)
    files = [in_memory("a.json", array(*rows)[:-30])]
    whole = list(read_raw(files, config))
    assert len(whole) == (5 if pile_set is None else 4)
    for index, (_, position) in enumerate(whole[:-2]):
        assert list(read_raw(files, config, position=position)) == whole[index + 1 :]


def test_json_array_reader_broken_in_the_middle_keeps_what_came_before():
    data = array(*ROWS)
    middle = data.index(b'{"id": 4')
    assert found(data[:middle] + b"}" + data[middle:]) == (["1", "2", "3"], [("sample:a.json", "broken array")])


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_json_array_reader_truncated_file_keeps_what_came_before(pack):
    rows = [{"content": " ".join(str(hash((number, word))) for word in range(80))} for number in range(300)]
    packed = pack(array(*rows))
    suffix = {gzip.compress: ".gz", zstd.compress: ".zst"}.get(pack, "")
    kept, rejects = found(packed[: len(packed) * 3 // 4], f"a.json{suffix}")
    assert kept == [str(number + 1) for number in range(len(kept))]
    assert 100 < len(kept) < 300
    assert rejects == [(f"sample:a.json{suffix}", "truncated file")]


def test_json_array_reader_object_with_bytes_of_another_encoding_is_the_only_one_lost():
    data = array(*ROWS).replace("标题3".encode(), "标题3".encode("gb18030")).replace(b" 5 ", b" \0 ", 1)
    assert found(data) == (
        ["1", "2", "4"],
        [("sample:a.json#3", "wrong encoding"), ("sample:a.json#5", "wrong encoding")],
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b" ", "truncated file"),
        (b"[]", "no records"),
        (b'{"content": "one"}\n{"content": "two"}', "not a JSON array"),
        ('[{"content": "one"}]'.encode("utf-16"), "broken array"),
        (b"<html>", "broken array"),
    ],
)
def test_json_array_reader_file_that_is_none_is_rejected_once(data, reason):
    assert found(data) == ([], [("sample:a.json", reason)])


def test_json_array_reader_byte_order_mark_and_other_file_types():
    assert found(b"\xef\xbb\xbf" + array(*ROWS))[0] == ["1", "2", "3", "4", "5"]
    assert found(array(*ROWS), "a.jsonl") == ([], [("sample:a.jsonl", "other file type")])


def test_json_array_reader_items_that_are_no_documents_are_rejected_one_by_one():
    bomb = json.loads("[" * (MAX_DEPTH + 5) + "]" * (MAX_DEPTH + 5))
    data = array(3, ["x"], {"content": 5}, {"content": "fine"}, {"content": "deep", "more": bomb}, {"content": "last"})
    kept, rejects = found(data)
    assert kept == ["4", "6"]
    assert [reason for _, reason in rejects] == ["no text", "no text", "no text", "too large"]


def test_json_array_reader_endless_object_is_rejected_and_the_next_read():
    many = {"content": "x", "more": ["word " * 100_000] * (2 * MAX_OBJECT_BYTES // 500_000)}
    long_text = {"content": "y" * (9 << 20)}
    assert found(array(many, long_text, {"content": "fine"})) == (
        ["3"],
        [("sample:a.json#1", "too large"), ("sample:a.json#2", "too large")],
    )


def test_json_array_reader_a_million_open_brackets_cost_no_memory_and_end_it():
    assert found(array(*ROWS)[:-1] + b"," + b"[" * 1_000_000)[0] == ["1", "2", "3", "4", "5"]
