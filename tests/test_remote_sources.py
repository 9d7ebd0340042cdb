"""Corpora behind URLs: the same records as from a folder, and failures that look like no damage."""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
import s3fs
from pydantic import ValidationError

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError, SourceError
from longalign_core.source_files import list_files
from longalign_core.sources import Sources
from longalign_core.stages.ingest import ingest
from longalign_core.store import Store
from tests.corpora_inputs import corpus
from tests.test_stage_corpora import documents_of, rejects_of

ROWS = [{"text": f"row {number} " * 30, "url": f"http://host/{number}"} for number in range(400)]
PACKED = gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode(), mtime=0)


class Site:
    """A web server of one file. With `lost` set it ends every connection after so many bytes of the file."""

    def __init__(self, data: bytes, *, ranges: bool = True) -> None:
        self.data, self.ranges = data, ranges
        self.lost: int | None = None
        self.etag = '"one"'


@contextmanager
def served(site: Site) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            if not self.path.startswith("/part.jsonl.gz"):
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, end = 0, len(site.data)
            wanted = self.headers.get("Range") if site.ranges else None
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first), min(end, int(last) + 1) if last else end
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(end - start))
            self.send_header("ETag", site.etag)
            if site.ranges:
                self.send_header("Accept-Ranges", "bytes")
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(site.data)}")
            self.end_headers()
            if body:
                lost = site.lost is not None and end > site.lost
                self.wfile.write(site.data[start : site.lost if lost else end])
                self.close_connection = lost

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/part.jsonl.gz"
    finally:
        server.shutdown()
        server.server_close()


def read_texts(url: str, out: Path) -> list[str]:
    ingest.function(corpus("json_lines", name="rows", location=url), {}, out, Runtime())
    assert rejects_of(out) == []
    return [document.text for document in documents_of(out)]


def fingerprint(url: str, folder: Path) -> str:
    runtime = Runtime(store=str(folder / "store"), scratch=folder / "scratch")
    return Sources(Store(runtime.store, folder / "fetched"), runtime, resolve_hub=False).fingerprint(url)


EXPECTED = [row["text"].strip() for row in ROWS]


@pytest.mark.parametrize("ranges", [True, False])
def test_http_file_is_read_whole_with_and_without_ranges(tmp_path, ranges):
    with served(Site(PACKED, ranges=ranges)) as url:
        assert read_texts(url, tmp_path) == EXPECTED
        (file,) = list_files(url).files
        with file.open() as stream:
            assert stream.read(10) == PACKED[:10]
            assert stream.seek(2_000) == 2_000
            assert stream.read(7) == PACKED[2_000:2_007]
            assert stream.seek(3) == 3
            assert stream.read() == PACKED[3:]


def test_memory_file_and_zip_locations_are_read(tmp_path):
    fsspec.filesystem("memory").pipe("/engine/rows/part.jsonl.gz", PACKED)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "part.jsonl.gz").write_bytes(PACKED)
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("inner/part.jsonl.gz", PACKED)
    here = tmp_path / "here"
    urls = ["memory://engine/rows", f"file://{here}", f"zip://inner::{tmp_path}/rows.zip"]
    for number, url in enumerate(urls):
        assert read_texts(url, tmp_path / str(number)) == EXPECTED
    prints = {fingerprint(url, tmp_path) for url in [*urls, str(here)]}
    assert len(prints) == 1


def test_s3_corpus_is_read_and_fingerprinted_by_its_listing(tmp_path, s3_url):
    system = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    bucket = s3_url.removeprefix("s3://")
    system.pipe_file(f"{bucket}/rows/part.jsonl.gz", PACKED)
    url = f"{s3_url}/rows"
    assert read_texts(url, tmp_path / "out") == EXPECTED
    first = fingerprint(url, tmp_path)
    system.pipe_file(f"{bucket}/rows/part.jsonl.gz", PACKED)
    assert fingerprint(url, tmp_path) == first
    system.pipe_file(f"{bucket}/rows/more.jsonl.gz", PACKED)
    assert fingerprint(url, tmp_path) != first
    files = list_files(url).files
    assert [file.relative_path for file in files] == ["more.jsonl.gz", "part.jsonl.gz"]
    assert all(file.checksum for file in files)
    with pickle.loads(pickle.dumps(files[1])).open() as stream:
        stream.seek(-8, 2)
        assert stream.read() == PACKED[-8:]


@pytest.mark.parametrize("path", ["nothing", "../no-such-bucket/rows"])
def test_s3_location_that_is_not_there_is_one_sentence(s3_url, path):
    url = "s3://no-such-bucket/rows" if path.startswith("..") else f"{s3_url}/{path}"
    with pytest.raises(InputError, match="correct the") as raised:
        list_files(url)
    assert url in str(raised.value)
    assert "\n" not in str(raised.value)


def test_http_file_that_is_not_there_or_another_content_is_seen(tmp_path):
    site = Site(PACKED)
    with served(site) as url:
        first = fingerprint(url, tmp_path)
        assert fingerprint(url, tmp_path) == first
        site.etag = '"two"'
        assert fingerprint(url, tmp_path) != first
        with pytest.raises(InputError, match="gone"):
            list_files(url.replace("part", "gone"))


def test_connection_lost_in_a_file_is_no_truncated_file_and_a_rerun_goes_on(tmp_path):
    site = Site(PACKED)
    with served(site) as url:
        site.lost = len(PACKED) // 2
        with pytest.raises(SourceError, match="run again") as raised:
            read_texts(url, tmp_path)
        assert "\n" not in str(raised.value)
        assert not list(tmp_path.glob("documents/*"))
        site.lost = None
        assert read_texts(url, tmp_path) == EXPECTED


@pytest.mark.parametrize("url", ["https://user:secret@host/c4", "https://host/c4?token=abc"])
def test_credentials_in_a_location_are_refused_and_not_repeated(url):
    with pytest.raises(ValidationError) as raised:
        corpus("json_lines", location=url)
    assert "carries a secret" in str(raised.value.errors()[0]["msg"])
    assert "secret@" not in str(raised.value.errors()[0]["msg"])
