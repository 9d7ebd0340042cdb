import bz2
import gzip
import io
import lzma
from functools import partial

import pytest
from backports import zstd

from longalign_core.corpora.cleaning import MAX_TEXT_BYTES
from longalign_core.source_files import SourceFile, list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw, reasons

TEXT = "第一句。\n第二句。\n\n\n \t\n另一篇。\r\n还是它。\r\n\r\n最后一篇"


def read(data: bytes | str, path: str = "a.txt"):
    return read_all([in_memory(path, data)], corpus("clue", language="zh"))


def test_clue_reader_real_sample_gives_every_document(test_data):
    documents, rejects = read_all(
        list_files(test_data / "corpora" / "clue").files, corpus("clue", name="clue", language="zh")
    )
    path = test_data / "corpora" / "clue" / "clue_small_0000.txt"
    blocks = [block for block in path.read_text(encoding="utf-8").split("\n\n") if block.strip()]
    assert len(documents) + len(rejects) == len(blocks) > 5
    assert rejects == []
    assert [one.text.split() for one in documents] == [block.split() for block in blocks]
    assert documents[0].id == "clue:clue_small_0000.txt#1"
    assert documents[0].language == "zh"


def test_clue_reader_blank_lines_part_documents_and_lines_are_kept():
    documents, rejects = read(TEXT)
    assert [(one.id, one.text, one.origin) for one in documents] == [
        ("sample:a.txt#1", "第一句。\n第二句。", "a.txt#1, from line 1"),
        ("sample:a.txt#2", "另一篇。\n还是它。", "a.txt#2, from line 6"),
        ("sample:a.txt#3", "最后一篇", "a.txt#3, from line 9"),
    ]
    assert rejects == []


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd.compress)],
)
def test_clue_reader_compressed_file_gives_the_same(suffix, pack):
    documents, _ = read(pack(TEXT.encode("utf-8-sig")), f"a.txt{suffix}")
    assert [one.text for one in documents] == [one.text for one in read(TEXT)[0]]


def test_clue_reader_goes_on_at_every_position():
    pieces = [TEXT.encode(), "旧的编码，另一种。".encode("gb18030"), b"\xff\xfe\x80", TEXT.encode()]
    file = in_memory("a.txt", b"\n\n".join(pieces))
    whole = list(read_raw([file], corpus("clue")))
    assert [position for _, position in whole] == list(range(1, 9))
    for start in range(9):
        assert list(read_raw([file], corpus("clue"), position=start)) == whole[start:]


def test_clue_reader_encodings_are_told_by_document():
    old = "这是一篇用旧编码写成的文章，中文。"
    damaged = "这是一篇用新编码写成的文章，中文。".encode().replace("新".encode(), "新".encode()[:2])
    utf_16 = "文章 a".encode("utf-16-le")
    documents, rejects = read(b"\n\n".join([old.encode("gb18030"), damaged, old.encode(), utf_16, b"\xff\xff\xff"]))
    assert [(one.id, one.text) for one in documents] == [("sample:a.txt#1", old), ("sample:a.txt#3", old)]
    assert [(one.id, one.reason) for one in rejects] == [
        ("sample:a.txt#2", "wrong encoding"),
        ("sample:a.txt#4", "wrong encoding"),
        ("sample:a.txt#5", "wrong encoding"),
    ]
    assert "from line 3" in rejects[0].detail


@pytest.mark.parametrize("line", ["字" * 100 + "\n", "字" * 3_000_000])
def test_clue_reader_document_too_large_is_rejected_and_the_next_read(line):
    long = (line * (MAX_TEXT_BYTES // len(line.encode()) + 1)).strip()
    documents, rejects = read(f"前\n\n{long[: MAX_TEXT_BYTES // 2]}\n\n后")
    assert [one.text for one in documents] == ["前", "后"]
    assert [(one.id, one.reason) for one in rejects] == [("sample:a.txt#2", "too large")]


@pytest.mark.parametrize("pack", [gzip.compress, partial(bz2.compress, compresslevel=1)])
def test_clue_reader_truncated_file_keeps_whole_documents_and_says_so(pack):
    texts = [
        f"第{number}篇 {number * 7919 % 9973}\n" + "。".join(str(hash((number, n))) for n in range(30))
        for number in range(900)
    ]
    packed = pack("\n\n".join(texts).encode())
    name = "a.txt.gz" if pack is gzip.compress else "a.txt.bz2"
    documents, rejects = read(packed[: int(len(packed) * 0.8)], name)
    assert [one.text for one in documents] == texts[: len(documents)]
    assert 300 < len(documents) < 900
    assert reasons(rejects) == ["truncated file"]
    assert f"after document {len(documents)}" in rejects[0].detail


def test_clue_reader_other_files_and_empty_ones():
    documents, rejects = read_all(
        [in_memory("a.json", "{}"), in_memory("b.txt", "\n\n"), in_memory("c.txt.gz", b"x")], corpus("clue")
    )
    assert documents == []
    assert reasons(rejects) == ["no records", "other file type", "truncated file"]


def test_clue_reader_failing_disk_is_not_taken_for_a_truncated_file():
    class Failing(io.BytesIO):
        def readline(self, *_):
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read_all([SourceFile("a.txt", 9, Failing)], corpus("clue"))
