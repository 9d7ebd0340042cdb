"""The store's promises, on a local folder and on S3 over HTTP."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from longalign_core.errors import InputError, ManifestError, MissingArtifactError, StoreError
from longalign_core.store import Manifest, Store
from longalign_core.store.files import LocalFiles

IDENTITY = {"stage": "thing", "version": 1, "config": {"a": 1}, "inputs": {}}
KEY = "0123456789abcdef"
ADDRESS = f"thing/{KEY}"


def commit(store: Store, folder: Path, **changes: object) -> Manifest:
    return store.commit(
        folder, {**IDENTITY, **changes}, KEY, label="", counts={"files": 1}, runtime={}, provenance={"seconds": 0}
    )


@pytest.fixture
def store(store_url: str, tmp_path: Path) -> Store:
    return Store(store_url, tmp_path / "fetched")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    (made / "inner").mkdir(parents=True)
    (made / "a.txt").write_text("alpha")
    (made / "inner" / "b.bin").write_bytes(bytes(range(256)) * 100)
    (made / ".resume").write_text("not part of it")
    return made


def test_commit_then_fetch_gives_the_same_bytes_without_hidden_files(store: Store, folder: Path) -> None:
    store.check()
    commit(store, folder)
    manifest = store.require(ADDRESS)
    fetched = store.fetch(manifest)
    assert (fetched / "a.txt").read_text() == "alpha"
    assert (fetched / "inner" / "b.bin").read_bytes() == bytes(range(256)) * 100
    assert [entry.path for entry in manifest.files] == ["a.txt", "inner/b.bin"]
    assert list(store.addresses()) == [ADDRESS]


def test_find_before_commit_is_none_and_require_raises(store: Store) -> None:
    assert store.find(ADDRESS) is None
    with pytest.raises(MissingArtifactError, match="no artifact thing/"):
        store.require(ADDRESS)


def test_second_commit_uses_the_winner_and_leaves_no_attempt(store: Store, folder: Path) -> None:
    first = commit(store, folder)
    (folder / "a.txt").unlink()
    (folder / "a.txt").write_text("another")
    second = commit(store, folder)
    assert second.attempt == first.attempt
    assert store.files.folders(ADDRESS) == [first.attempt]


def _race(url: str, fetched: Path, text: str, gate: object, results: object) -> None:
    work = fetched.parent / f"work-{text}"
    work.mkdir()
    for number in range(5):
        (work / f"{number}.txt").write_text(text)
    racing = Store(url, fetched)
    gate.wait()  # type: ignore[attr-defined]
    results.put(commit(racing, work).attempt)  # type: ignore[attr-defined]


def test_two_writers_racing_end_with_one_whole_artifact(store_url: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(2), context.Queue()
    writers = [
        context.Process(target=_race, args=(store_url, tmp_path / f"fetched-{text}", text, gate, results))
        for text in ("one", "two")
    ]
    for writer in writers:
        writer.start()
    attempts = {results.get(timeout=60) for _ in writers}
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    store = Store(store_url, tmp_path / "fetched")
    assert attempts == {store.require(ADDRESS).attempt}
    assert store.files.folders(ADDRESS) == list(attempts)
    texts = {path.read_text() for path in store.fetch(store.require(ADDRESS)).iterdir()}
    assert len(texts) == 1


class LosesReplies(LocalFiles):
    """A file system whose conditional writes land, but whose answer is lost on the way."""

    def __init__(self, root: Path, error: BaseException) -> None:
        super().__init__(root)
        self._error = error

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        raise self._error


def test_commit_whose_write_landed_though_its_reply_was_lost_keeps_its_files(tmp_path: Path, folder: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "fetched")
    store.files = LosesReplies(tmp_path / "store", FileExistsError("repeated write"))
    manifest = commit(store, folder)
    assert (store.fetch(store.require(ADDRESS)) / "a.txt").read_text() == "alpha"
    assert manifest.attempt == store.require(ADDRESS).attempt


def test_commit_interrupted_after_its_manifest_keeps_its_files(tmp_path: Path, folder: Path) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "fetched")
    store.files = LosesReplies(tmp_path / "store", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        commit(store, folder)
    assert (store.fetch(store.require(ADDRESS)) / "a.txt").read_text() == "alpha"


def test_garbage_is_attempts_without_a_manifest_and_not_those_worked_at(store: Store, folder: Path) -> None:
    manifest = commit(store, folder)
    store.files.upload(folder / "a.txt", f"{ADDRESS}/abandoned/a.txt")
    store.files.upload(folder / "a.txt", "other/1/under-way/a.txt")
    with store.lease("other/1", lambda: False):
        assert list(store.collect_garbage(delete=False)) == [f"{ADDRESS}/abandoned"]
        assert list(store.collect_garbage(delete=True)) == [f"{ADDRESS}/abandoned"]
        assert list(store.collect_garbage(delete=True)) == []
    assert store.files.folders(ADDRESS) == [manifest.attempt]
    assert list(store.collect_garbage(delete=True)) == ["other/1/under-way"]


def test_archived_replies_are_no_stage_and_no_garbage(store: Store, folder: Path) -> None:
    manifest = commit(store, folder)
    kept = [f"_replies/texts/{'0' * 64}.zst", f"_replies/replies/instruct-m-00000000/{'1' * 32}.jsonl.zst"]
    for name in kept:
        store.files.create(name, b"paid for")
    assert list(store.collect_garbage(delete=True)) == []
    assert list(store.addresses()) == [manifest.address]
    assert store.require(manifest.address) == manifest
    assert sorted(store.files.sizes("_replies")) == sorted(kept)


def test_fetch_of_a_changed_file_is_refused(store: Store, folder: Path, tmp_path: Path) -> None:
    manifest = commit(store, folder)
    name = f"{manifest.folder}/a.txt"
    store.files.delete(name)
    store.files.create(name, b"ALPHA")
    with pytest.raises(ManifestError, match="not what its manifest says"):
        Store(store.url, tmp_path / "elsewhere").fetch(manifest)


def test_artifact_whose_file_is_gone_is_refused_with_the_remedy(store: Store, folder: Path, tmp_path: Path) -> None:
    manifest = commit(store, folder)
    store.files.delete(f"{manifest.folder}/a.txt")
    for act in (store.check_files, Store(store.url, tmp_path / "elsewhere").fetch):
        with pytest.raises(ManifestError, match=r"a\.txt of thing/.* is gone .*delete .*manifest\.json"):
            act(manifest)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda raw: "{half", "is not JSON"),
        (lambda raw: json.dumps({**raw, "schema": 99}), "has schema 99, this version reads up to 1"),
        (lambda raw: json.dumps({**raw, "files": "none"}), "is damaged at files"),
        (lambda raw: json.dumps({**raw, "key": "f" * 16}), "calls itself"),
    ],
)
def test_manifest_that_cannot_be_used_is_one_sentence(store: Store, folder: Path, change, expected: str) -> None:
    raw = json.loads(commit(store, folder).to_bytes())
    name = f"{ADDRESS}/manifest.json"
    store.files.delete(name)
    store.files.create(name, change(raw).encode())
    with pytest.raises(ManifestError, match=expected) as caught:
        store.find(ADDRESS)
    assert "\n" not in str(caught.value)


def test_ref_moves_only_by_compare_and_swap(store: Store) -> None:
    assert store.read_ref("best") is None
    store.move_ref("best", "thing/1", None)
    with pytest.raises(FileExistsError):
        store.move_ref("best", "thing/2", None)
    _, version = store.read_ref("best") or ("", "")
    store.move_ref("best", "thing/2", version)
    with pytest.raises(FileExistsError):
        store.move_ref("best", "thing/3", version)
    assert (store.read_ref("best") or ("",))[0] == "thing/2"


def test_lease_is_held_by_one_at_a_time(store: Store) -> None:
    inside, entered = threading.Event(), []

    def second() -> None:
        inside.wait(30)
        with store.lease(ADDRESS, lambda: False) as held:
            entered.append(held)

    waiter = threading.Thread(target=second)
    waiter.start()
    with store.lease(ADDRESS, lambda: False) as held:
        assert held
        inside.set()
        waiter.join(2.5)
        assert waiter.is_alive()
        assert entered == []
    waiter.join(30)
    assert entered == [True]


def test_lease_is_given_up_when_somebody_else_finished(store: Store) -> None:
    with store.lease(ADDRESS, lambda: False), store.lease(ADDRESS, lambda: True) as held:
        assert not held


def test_lease_of_a_killed_process_is_taken_over_at_once(store_url: str, store: Store, tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom longalign_core.store import Store\n"
        f"with Store(sys.argv[1], Path(sys.argv[2])).lease({ADDRESS!r}, lambda: False):\n"
        "    print('held', flush=True)\n    time.sleep(600)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, store_url, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    since = time.monotonic()
    with store.lease(ADDRESS, lambda: False) as held:
        assert held
    assert time.monotonic() - since < 30  # the lease itself promises 60 seconds


def test_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(StoreError, match="cannot write to the store"):
        Store(str(tmp_path / "a file" / "store"), tmp_path).check()


def test_s3_store_without_its_bucket_says_so(s3_url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not there"):
        Store("s3://longalign-no-such-bucket/team", tmp_path).check()


def test_store_url_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a folder nor s3"):
        Store("ftp://somewhere/store", tmp_path)


def _commit_with_a_full_disk(url: str, work: Path, results: object) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    os.link = _no_links  # type: ignore[assignment]
    try:
        commit(Store(url, work.parent / "fetched"), work)
    except StoreError as error:
        results.put(str(error))  # type: ignore[attr-defined]


def _no_links(*_: object) -> None:
    raise OSError("another file system")


def test_store_that_fills_up_in_the_middle_leaves_nothing_that_looks_done(tmp_path: Path) -> None:
    # The limit on file size makes the operating system refuse the second file half-way, as a full disk does;
    # links are switched off as they are between two file systems.
    url, work = str(tmp_path / "store"), tmp_path / "work"
    work.mkdir()
    (work / "a-small").write_bytes(b"x" * 1000)
    (work / "b-large").write_bytes(b"x" * 2_000_000)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_commit_with_a_full_disk, args=(url, work, results))
    process.start()
    message = results.get(timeout=60)
    process.join(60)
    store = Store(url, tmp_path / "fetched")
    assert "check its place, space" in message
    assert store.find(ADDRESS) is None
    assert store.files.sizes("thing") == {}
