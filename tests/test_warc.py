import gzip
import io
import random
import tracemalloc
import zlib

import brotli
import pytest

from longalign_core.corpora.dumps.warc_records import MAX_RECORD_BYTES
from longalign_core.records import Reject
from longalign_core.source_files import SourceFile, list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw

WARC = corpus("warc", name="crawl")
PARAGRAPH = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep in the warm sun. " * 5


def page(*paragraphs: str, title: str = "A page") -> bytes:
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    menu = '<nav><ul><li><a href="/">Home</a></li><li><a href="/about">About us</a></li></ul></nav>'
    head = f"<head><title>{title}</title></head>"
    return f"<!DOCTYPE html><html>{head}<body>{menu}<main>{body}</main></body></html>".encode()


def response(body: bytes, *headers: str, status: str = "200 OK", media_type: str = "text/html; charset=utf-8") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {media_type}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def record(block: bytes, url: str = "http://example.org/", kind: str = "response") -> bytes:
    media_type = "text/plain" if kind == "conversion" else f"application/http; msgtype={kind}"
    lines = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        f"WARC-Target-URI: {url}",
        "WARC-Date: 2024-05-06T07:08:09Z",
        "WARC-Record-ID: <urn:uuid:0a1b2c3d-0000-4000-8000-000000000000>",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(block)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + block + b"\r\n\r\n"


def pages(count: int) -> list[bytes]:
    """Archive of pages `http://example.org/0`, …, each behind its request."""
    numbers = random.Random(7)
    records = []
    for number in range(count):
        url = f"http://example.org/{number}"
        records.append(record(b"GET / HTTP/1.1\r\n\r\n", url, "request"))
        words = " ".join(f"{numbers.getrandbits(64):x}" for _ in range(40 + number))
        records.append(record(response(page(f"Page {number}. {PARAGRAPH} {words}")), url))
    return records


def packed(records: list[bytes]) -> bytes:
    return b"".join(gzip.compress(one, mtime=0) for one in records)


def test_warc_reader_real_crawl_gives_main_text_of_each_page(test_data):
    documents, rejects = read_all(list_files(test_data / "corpora" / "commoncrawl").files, WARC)
    assert len(documents) + len(rejects) == 135  # 133 responses, and two resources with the crawler's own notes
    assert {reject.reason for reject in rejects} == {"HTTP status", "not HTML"}
    by_url = {document.url: document for document in documents}
    selinux = by_url["http://127.0.0.1:18765/zh-CN/sect.selinux.html"]
    assert selinux.id == f"crawl:{selinux.url}"
    assert selinux.created == "2026-11-22T15:09:01Z"
    assert "SELinux" in selinux.title
    assert "semanage user -l" in selinux.text
    assert "<div" not in selinux.text


def test_warc_reader_page_gives_text_without_menu():
    data = packed([record(response(page(PARAGRAPH, title="Fox\n &amp; dog")), "<http://example.org/fox>")])
    (document,), rejects = read_all([in_memory("a.warc.gz", data)], WARC)
    assert rejects == []
    assert document.text == PARAGRAPH.strip()
    assert (document.url, document.title) == ("http://example.org/fox", "Fox & dog")
    assert (document.created, document.origin) == ("2024-05-06T07:08:09Z", "a.warc.gz@0")


def test_warc_reader_wet_gives_texts_as_they_are():
    data = packed(
        [record(b"info", kind="warcinfo"), record("naïve\n\n<p>中文".encode(), "http://e.org/", "conversion")]
    )
    (document,), rejects = read_all([in_memory("a.warc.wet.gz", data)], WARC)
    assert rejects == []
    assert (document.text, document.url, document.title) == ("naïve\n\n<p>中文", "http://e.org/", None)


def chunked(data: bytes) -> bytes:
    chunks = [data[start : start + 100] for start in range(0, len(data), 100)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("encode", "headers"),
    [
        (chunked, ["Transfer-Encoding: chunked"]),
        (gzip.compress, ["Content-Encoding: gzip"]),
        (zlib.compress, ["Content-Encoding: deflate"]),
        (brotli.compress, ["Content-Encoding: br"]),
        (lambda data: chunked(gzip.compress(data)), ["Transfer-Encoding: chunked", "Content-Encoding: gzip"]),
    ],
)
def test_warc_reader_encoded_response_is_decoded(encode, headers):
    data = record(response(encode(page(PARAGRAPH)), *headers))
    (document,), rejects = read_all([in_memory("a.warc", data)], WARC)
    assert (document.text, rejects) == (PARAGRAPH.strip(), [])


@pytest.mark.parametrize(
    ("encoding", "media_type", "meta"),
    [
        ("utf-8", "text/html", ""),
        ("utf-8", "text/html; charset=iso-8859-1", ""),
        ("gb18030", "text/html; charset=gb2312", ""),
        ("gb18030", "text/html", '<meta charset="gbk">'),
        ("gb18030", "text/html", '<meta http-equiv="Content-Type" content="text/html; charset=gb2312">'),
        ("utf-16", "text/html", ""),
        ("gb18030", "text/html; charset=no-such-charset", "<meta charset=gb18030>"),
    ],
)
def test_warc_reader_charset_is_found(encoding, media_type, meta):
    text = "龙年的第一天，村里的人们都聚集在广场上，等待着舞龙的队伍从河边缓缓走来，锣鼓声响彻山谷。" * 5
    html = f"<html><head>{meta}<title>龙</title></head><body><p>{text}</p></body></html>"
    data = record(response(html.encode(encoding), media_type=media_type))
    (document,), _ = read_all([in_memory("a.warc", data)], WARC)
    assert (document.text, document.title) == (text, "龙")


def test_warc_reader_undeclared_charset_is_guessed():
    text = "Der Fuß des Bären drückt über die Brücke, während die Mädchen fröhlich Äpfel schälen. " * 5
    html = f"<html><head><title>x</title></head><body><p>{text}</p></body></html>"
    (document,), _ = read_all(
        [in_memory("a.warc", record(response(html.encode("cp1252"), media_type="text/html")))], WARC
    )
    assert document.text == text.strip()


def test_warc_reader_what_is_no_page_is_rejected_with_its_place():
    records = [
        record(response(b"%PDF", media_type="application/pdf"), "http://e.org/pdf"),
        record(response(page("gone"), status="404 Not Found"), "http://e.org/gone"),
        record(response(b"<html><body></body></html>"), "http://e.org/empty"),
        record(response(b""), "http://e.org/nothing"),
        record(response(page(PARAGRAPH), "Content-Encoding: gzip"), "http://e.org/lie"),
        record(b"no HTTP at all", "http://e.org/odd"),
        record(b"", "http://e.org/again", "revisit"),
        record(b"x" * (MAX_RECORD_BYTES + 1), "http://e.org/huge"),
        record(response(gzip.compress(b"<p>" * MAX_RECORD_BYTES), "Content-Encoding: gzip"), "http://e.org/bomb"),
        record(response(page(PARAGRAPH)), "http://e.org/good"),
    ]
    documents, rejects = read_all([in_memory("a.warc.gz", packed(records)), in_memory("b.txt", b"x")], WARC)
    assert [document.url for document in documents] == ["http://e.org/good"]
    assert [(reject.id.rpartition("/")[2], reject.reason) for reject in rejects] == [
        ("pdf", "not HTML"),
        ("gone", "HTTP status"),
        ("empty", "no main text"),
        ("nothing", "no main text"),
        ("lie", "broken response"),
        ("odd", "HTTP status"),
        ("again", "seen before by the crawler"),
        ("huge", "too large"),
        ("bomb", "too large"),
        ("crawl:b.txt", "other file type"),
    ]
    assert f"a.warc.gz@{len(packed(records[:1]))}" in rejects[1].detail


@pytest.mark.parametrize("pack", [packed, b"".join, lambda records: gzip.compress(b"".join(records))])
def test_warc_reader_gone_on_with_at_any_position_gives_the_rest(pack):
    records = pages(4)
    records.insert(3, record(response(b"", status="301 Moved"), "http://example.org/moved"))
    file = in_memory("a.warc.gz", pack(records))
    everything = list(read_raw([file], WARC))
    assert len(everything) == 5
    for number, (_, position) in enumerate(everything, start=1):
        rest = [one for one, _ in read_raw([file], WARC, position=position)]
        assert rest == [one for one, _ in everything][number:]


@pytest.mark.parametrize("pack", [packed, b"".join, lambda records: gzip.compress(b"".join(records))])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.8, 0.99])
def test_warc_reader_truncated_file_keeps_what_came_before(pack, share):
    data = pack(pages(10))
    whole, _ = read_all([in_memory("a.warc.gz", data)], WARC)
    documents, rejects = read_all([in_memory("a.warc.gz", data[: int(len(data) * share)])], WARC)
    assert documents == whole[: len(documents)]
    assert 10 * share - 4 <= len(documents) <= 10 * share
    assert [reject.reason for reject in rejects] == ["truncated file"]


@pytest.mark.parametrize("offset", [2, 30])
def test_warc_reader_damage_in_the_middle_costs_one_record(offset):
    records = [gzip.compress(one, mtime=0) for one in pages(5)]
    before = sum(map(len, records[:5]))
    data = bytearray(b"".join(records))
    data[before + offset : before + offset + 40] = b"\xff" * 40
    file = in_memory("a.warc.gz", bytes(data))
    everything = list(read_raw([file], WARC))
    assert [one.reason if isinstance(one, Reject) else one.url[-1] for one, _ in everything] == [
        *("0", "1", "damaged record", "3", "4")
    ]
    assert f"a.warc.gz@{before} " in everything[2][0].detail
    for number, (_, position) in enumerate(everything, start=1):
        assert [one for one, _ in read_raw([file], WARC, position=position)] == [one for one, _ in everything][number:]


@pytest.mark.parametrize("data", [b"<html>" * 5000, gzip.compress(b"<html>", mtime=0), b"\x1f\x8b\x08"])
def test_warc_reader_file_that_is_no_archive_is_rejected(data):
    documents, rejects = read_all([in_memory("a.warc.gz", data)], WARC)
    assert (documents, [reject.reason for reject in rejects]) == ([], ["truncated file"])


def test_warc_reader_failing_disk_is_not_taken_for_damage():
    class Disk(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 1000:
                raise OSError(5, "Input/output error")
            return super().read(500)

    with pytest.raises(OSError, match="Input/output"):
        read_all([SourceFile("a.warc.gz", 10, lambda: Disk(packed(pages(50))))], WARC)


def test_warc_reader_large_archive_costs_the_memory_of_a_record():
    one = gzip.compress(record(b"x" * 200_000, kind="request"), mtime=0) * 500
    two = gzip.compress(record(response(page(PARAGRAPH))), mtime=0)
    tracemalloc.start()
    documents, _ = read_all([in_memory("a.warc.gz", one + two)], WARC)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert len(documents) == 1
