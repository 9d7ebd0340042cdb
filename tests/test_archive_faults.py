"""The archive where the store fails: one sentence, and nothing that was paid for is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from backports import zstd

from longalign_core.errors import StoreError
from tests.archive_setup import SHELF, machine, names, num_waiting, wait_until


@pytest.mark.parametrize("damage", ["cut off", "other content", "empty"])
def test_archive_damaged_segment_is_one_sentence_and_none_of_it_is_taken(tmp_path, damage):
    url = str(tmp_path / "store")
    with machine(tmp_path / "one", url) as one:
        one.put(1, 2)
        one.archive.save()
        (name,) = names(one.objects, "replies")
    place = tmp_path / "store" / name
    data = place.read_bytes()
    lines = zstd.decompress(data).splitlines(keepends=True)
    changed = {"cut off": data[:-9], "other content": zstd.compress(lines[0]), "empty": b""}
    place.write_bytes(changed[damage])
    with machine(tmp_path / "two", url) as two:
        with pytest.raises(StoreError, match=f"damaged: the content of .*{name} is not what its name says"):
            two.archive.fetch()
        assert len(two.responses) == 0
    place.unlink()
    with machine(tmp_path / "one", url) as one, machine(tmp_path / "two", url) as two:
        assert (one.archive.fetch(), two.archive.fetch()) == (0, 0)
    place.write_bytes(data)
    with machine(tmp_path / "two", url) as two:
        assert two.archive.fetch() == 1
        assert two.texts(1, 2) == ["words 1", "words 2"]


def test_archive_rows_of_an_unknown_form_are_refused_and_none_is_taken(tmp_path):
    note = {"row": "note", "key": "draw", "value": "3", "time": None}
    for odd in ({"row": "picture"}, {"row": "note"}, {**note, "row": "reply"}):
        content = b"".join(json.dumps(row).encode() + b"\n" for row in (note, odd))
        folder = tmp_path / "store" / "_replies" / "replies" / SHELF
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        name = hashlib.sha256(content).hexdigest()[:32]
        (folder / f"{name}.jsonl.zst").write_bytes(zstd.compress(content))
        with machine(tmp_path / "one", str(tmp_path / "store")) as one:
            with pytest.raises(StoreError, match=r"form that is not known here .*update LongAlign"):
                one.archive.fetch()
            assert one.responses.note("draw") is None


def test_archive_store_that_fails_for_a_while_gets_everything_in_the_end(tmp_path):
    store = tmp_path / "store"
    store.write_text("a file where a folder should be")
    with machine(tmp_path / "one", str(store)) as one:
        with one.archive.saving(seconds=0.01):
            one.put(1)
            wait_until(lambda: one.archive.num_failures > 1)
            one.put(2)
            store.unlink()
        assert names(one.objects, "replies") != []
    with machine(tmp_path / "two", str(store)) as two:
        two.archive.fetch()
        assert two.texts(1, 2) == ["words 1", "words 2"]


def test_archive_last_save_that_fails_is_a_sentence_and_nothing_is_lost_here(tmp_path):
    store = tmp_path / "store"
    store.write_text("a file where a folder should be")
    with machine(tmp_path / "one", str(store)) as one:
        sentence = r"cannot write to the store .*run again, and nothing is asked twice"
        with pytest.raises(StoreError, match=sentence), one.archive.saving():
            one.put(1)
        assert one.texts(1) == ["words 1"]
        store.unlink()
        assert one.archive.save() == 1


def test_archive_error_of_the_work_wins_over_a_failing_save_and_what_came_is_saved(tmp_path):
    store = tmp_path / "store"
    with machine(tmp_path / "one", str(store)) as one:
        with pytest.raises(ZeroDivisionError), one.archive.saving():
            one.put(1)
            raise ZeroDivisionError
        assert len(names(one.objects, "replies")) == 1
        shutil.rmtree(store)
        store.write_text("a file where a folder should be")
        with pytest.raises(ZeroDivisionError), one.archive.saving():
            one.put(2)
            raise ZeroDivisionError
        assert one.texts(1, 2) == ["words 1", "words 2"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from longalign_core.errors import StoreError
from tests.archive_setup import machine, num_waiting

with machine(Path(sys.argv[1]), sys.argv[2]) as one:
    one.put(1)
    # No file may grow beyond this, as on a disk that is nearly full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        one.archive.save()
    except StoreError as error:
        print(error)
"""


def test_archive_store_without_space_is_one_sentence(tmp_path):
    scratch, store = tmp_path / "one", tmp_path / "store"
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(scratch), str(store)], capture_output=True, text=True, env=os.environ
    )
    assert process.stdout.startswith(f"cannot write to the store {store}: ")
    assert process.stdout.count("\n") == 1
    assert names(machine_objects(scratch, store), "") == []
    assert num_waiting(scratch / "responses" / "instruct.sqlite") == 1


def machine_objects(scratch: Path, store: Path):
    with machine(scratch, str(store)) as one:
        return one.objects


@pytest.fixture
def denying_endpoint() -> Iterator[str]:
    """An S3 endpoint that grants nothing."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def deny(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_PUT = do_HEAD = do_POST = deny  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_archive_store_without_rights_is_one_sentence(tmp_path, s3_url, denying_endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", denying_endpoint)
    with machine(tmp_path / "one", s3_url) as one:
        one.put(1)
        for act in (one.archive.save, one.archive.fetch):
            with pytest.raises(StoreError, match=f"cannot .* the store {s3_url}: .*Denied.*rights and keys") as caught:
                act()
            assert "test-secret" not in str(caught.value)


def test_archive_bucket_that_is_gone_is_one_sentence(tmp_path, s3_url):
    with machine(tmp_path / "one", f"{s3_url.removesuffix('/team')}-gone/team") as one:
        one.put(1)
        with pytest.raises(StoreError, match=r"the store s3://.*-gone/team"):
            one.archive.save()
        assert one.texts(1) == ["words 1"]
