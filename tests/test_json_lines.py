import bz2
import gzip
import json
import lzma
import random
from functools import partial

import pytest
from backports import zstd

from longalign_core.corpora.formats.json_lines import MAX_LINE_BYTES
from longalign_core.source_files import SourceFile, list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw


def test_json_lines_reader_real_c4_shard_gives_every_row(test_data):
    files = list_files(test_data / "corpora" / "c4").files
    documents, rejects = read_all(files, corpus("json_lines", name="c4", min_characters=200))
    with files[0].open() as stored, gzip.open(stored) as lines:
        rows = [json.loads(line) for line in lines]
    assert len(documents) + len(rejects) == len(rows) == 245
    assert [reject.reason for reject in rejects] == ["too short"]
    first = documents[0]
    assert first.id == "c4:en/c4-train.00000-of-00001.json.gz#1"
    assert (first.url, first.created) == (rows[0]["url"], rows[0]["timestamp"])
    assert first.text.split() == rows[0]["text"].split()


def test_json_lines_reader_broken_lines_are_named_and_the_rest_kept():
    lines = [
        '{"text": "first"}',
        "{broken",
        "",
        '{"text": 5}',
        '["text"]',
        '{"text": "half \\ud800"}',
        '{"text": "last", "url": 7}',
    ]
    documents, rejects = read_all([in_memory("part.jsonl", "\n".join(lines))], corpus("json_lines"))
    assert [(document.id, document.text, document.url) for document in documents] == [
        ("sample:part.jsonl#1", "first", None),
        ("sample:part.jsonl#7", "last", None),
    ]
    assert [(reject.id, reject.reason) for reject in rejects] == [
        ("sample:part.jsonl#2", "broken line"),
        ("sample:part.jsonl#4", "no text"),
        ("sample:part.jsonl#5", "no text"),
        ("sample:part.jsonl#6", "broken line"),
    ]


@pytest.mark.parametrize("kept_bytes", [5, 200, 0.5, 0.9, -8])
def test_json_lines_reader_truncated_gz_keeps_a_prefix_and_says_so(kept_bytes):
    rows = [{"text": f"row {number} " + str(hash((number, "salt"))) * 20} for number in range(400)]
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    end = kept_bytes if isinstance(kept_bytes, int) else int(len(packed) * kept_bytes)
    documents, rejects = read_all([in_memory("a.json.gz", packed[:end])], corpus("json_lines"))
    assert [document.text for document in documents] == [row["text"] for row in rows[: len(documents)]]
    assert [reject.reason for reject in rejects] == ["truncated file"]
    assert f"after line {len(documents)}" in rejects[0].detail
    if end > len(packed) // 2 or end < 0:
        assert documents


def test_json_lines_reader_gz_that_is_none_is_rejected():
    documents, rejects = read_all([in_memory("a.jsonl.gz", b"{}\n"), in_memory("b.csv", b"x")], corpus("json_lines"))
    assert documents == []
    assert [reject.reason for reject in rejects] == ["truncated file", "other file type"]


def test_json_lines_reader_array_is_rejected_once():
    documents, rejects = read_all([in_memory("a.json", '[{"text": "a"},\n{"text": "b"}]')], corpus("json_lines"))
    assert documents == []
    assert [reject.reason for reject in rejects] == ["not JSON lines"]


def test_json_lines_reader_endless_line_is_rejected_and_the_next_read():
    text = json.dumps({"text": "x" * MAX_LINE_BYTES}) + "\n" + json.dumps({"text": "short"}) + "\n"
    documents, rejects = read_all([in_memory("a.jsonl", text)], corpus("json_lines"))
    assert [(document.id, document.text) for document in documents] == [("sample:a.jsonl#2", "short")]
    assert [(reject.id, reject.reason) for reject in rejects] == [("sample:a.jsonl#1", "too large")]


def test_json_lines_reader_failing_disk_is_not_taken_for_a_truncated_file():
    def fail():
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read_all([SourceFile("a.jsonl.gz", 10, fail)], corpus("json_lines"))


def test_json_lines_reader_fields_are_named_by_the_recipe_and_dots_lead_inside():
    row = {
        "raw": {"body": "inner"},
        "meta.id": "http://a",
        "about": {"day": "2020", "terms": "MIT"},
        "title": "not asked",
    }
    fields = {"url_field": "meta.id", "created_field": "about.day", "licence_field": "about.terms", "title_field": None}
    config = corpus("json_lines", text_field="raw.body", **fields)
    (document,), rejects = read_all([in_memory("a.jsonl", json.dumps(row))], config)
    assert (document.text, document.url, document.created) == ("inner", "http://a", "2020")
    assert (document.licence, document.title, rejects) == ("MIT", None, [])


PACKERS = {
    ".bz2": partial(bz2.compress, compresslevel=1),
    ".xz": partial(lzma.compress, preset=0),
    ".zst": zstd.compress,
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_json_lines_reader_other_compressions_whole_and_truncated(suffix):
    texts = [random.Random(number).randbytes(1_500).hex() for number in range(200)]
    packed = PACKERS[suffix]("".join(json.dumps({"text": text}) + "\n" for text in texts).encode())
    documents, rejects = read_all([in_memory(f"a.jsonl{suffix}", packed)], corpus("json_lines"))
    assert ([document.text for document in documents], rejects) == (texts, [])
    half = in_memory(f"a.jsonl{suffix}", packed[: len(packed) * 6 // 10])
    documents, rejects = read_all([half], corpus("json_lines"))
    assert [document.text for document in documents] == texts[: len(documents)]
    assert 50 < len(documents) < 150
    assert [reject.reason for reject in rejects] == ["truncated file"]


def pile_lines() -> str:
    names = ["ArXiv", "Books3", None, "ArXiv", "Github", "Books3"]
    rows = [{"text": f"row {number}", "meta": {"pile_set_name": name}} for number, name in enumerate(names, start=1)]
    return "\n".join([*(json.dumps(row) for row in rows), "{broken", "", '{"text": "row 9", "meta": {}}'])


@pytest.mark.parametrize("pile_set", [None, "ArXiv", "Github"])
def test_json_lines_reader_going_on_at_any_position_gives_the_rest(pile_set):
    config = corpus("json_lines", pile_set=pile_set)
    files = [in_memory("a.jsonl", pile_lines())]
    whole = list(read_raw(files, config))
    for index, (_, position) in enumerate(whole):
        if index == 0 or position > whole[index - 1][1]:
            assert list(read_raw(files, config, position=position)) == whole[index + 1 :]


def test_json_lines_reader_pile_set_keeps_its_rows_and_counts_the_others_once():
    documents, rejects = read_all([in_memory("a.jsonl", pile_lines())], corpus("json_lines", pile_set="ArXiv"))
    assert [document.text for document in documents] == ["row 1", "row 4"]
    assert [(reject.reason, reject.detail) for reject in rejects[1:]] == [
        ("other Pile sets left out", "5 rows that are not of 'ArXiv'")
    ]
    assert rejects[0].reason == "broken line"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\n \n", ["no records"]),
        (b"\xef\xbb\xbf" + b'{"text": "marked"}\n', []),
        ('{"text": "wide"}'.encode("utf-16"), ["not JSON lines"]),
        ('{"text": "文"}'.encode("gb18030") + b"\n" + b'{"text": "a\0b"}\n{"text": "fine"}', ["broken line"] * 2),
        (json.dumps({"text": "x" * 10_000_000}).encode(), ["too large"]),
        (json.dumps({"text": "文" * (3 << 20)}, ensure_ascii=False).encode(), ["too large"]),
    ],
)
def test_json_lines_reader_odd_bytes_are_counted(data, expected):
    _, rejects = read_all([in_memory("a.jsonl", data)], corpus("json_lines"))
    assert [reject.reason for reject in rejects] == expected
