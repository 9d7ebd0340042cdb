"""Copies of resume state in the store: what vanished with a disk comes back, whole or not at all."""

from __future__ import annotations

import shutil
import threading

import pytest

from longalign_core.errors import StoreError, TrainingError
from longalign_core.store import Store
from longalign_core.training.copies import copying, fetch_newer
from longalign_core.training.job import EVENTS_FILE, MODELS_FOLDER, PUBLISHED_FILE, RESUME_FOLDER
from longalign_core.training.resume import Partition, complete_point, digest_files, find_point, list_files, resume_tag

ADDRESS = "train/0123456789abcdef"


def make_point(out_dir, step):
    folder = out_dir / RESUME_FOLDER / resume_tag(step)
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(b"state of step %d" % step)
    (folder / "optimizer.pt").write_bytes(b"optimizer")
    with (out_dir / EVENTS_FILE).open("a") as events:
        events.write(f"step {step}\n")
    digests = digest_files(folder, list_files(folder))
    complete_point(out_dir / RESUME_FOLDER, step, Partition(ranks=2, zero_stage=2), digests, num_kept=1)


@pytest.fixture
def store(store_url, tmp_path):
    return Store(store_url, tmp_path / "fetched")


@pytest.fixture
def out_dir(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def copy_points(store, out_dir, *steps):
    """Make points and have each copied. A block that fails finishes its copies."""
    with pytest.raises(TrainingError, match="machine lost"), copying(store.partial(ADDRESS), out_dir) as on_point:
        for step in steps:
            make_point(out_dir, step)
            on_point(step)
        raise TrainingError("machine lost")


def files_of(store, step):
    (folder,) = (f"_partial/{ADDRESS}/{name}" for name in store.partial(ADDRESS).names() if resume_tag(step) in name)
    return [name for name in store.files.sizes(folder) if not name.endswith("/list.json")]


def tamper(store, name, data):
    store.files.delete(name)
    store.files.create(name, data)


def test_copy_of_a_vanished_folder_comes_back_with_what_belongs_to_it(store, out_dir):
    (out_dir / PUBLISHED_FILE).write_text("[]")
    copy_points(store, out_dir, 5, 10)
    shutil.rmtree(out_dir)
    out_dir.mkdir()
    fetch_newer(store.partial(ADDRESS), out_dir)
    assert find_point(out_dir / RESUME_FOLDER).step == 10
    assert (out_dir / RESUME_FOLDER / resume_tag(10) / "state.pt").read_bytes() == b"state of step 10"
    assert (out_dir / EVENTS_FILE).read_text() == "step 5\nstep 10\n"
    assert (out_dir / PUBLISHED_FILE).read_text() == "[]"
    # What goes on here does not change the copy.
    with (out_dir / EVENTS_FILE).open("a") as events:
        events.write("step 11\n")
    shutil.rmtree(out_dir)
    out_dir.mkdir()
    fetch_newer(store.partial(ADDRESS), out_dir)
    assert (out_dir / EVENTS_FILE).read_text() == "step 5\nstep 10\n"


def test_only_the_newest_copy_stays(store, out_dir):
    copy_points(store, out_dir, 5)
    copy_points(store, out_dir, 10)
    assert [name.rpartition("-")[0] for name in store.partial(ADDRESS).names()] == [resume_tag(10)]


def test_point_behind_which_a_model_waits_to_be_published_is_not_copied(store, out_dir):
    (out_dir / MODELS_FOLDER / "step-000004").mkdir(parents=True)
    copy_points(store, out_dir, 5)
    assert not store.partial(ADDRESS).names()


def test_copy_that_is_not_ahead_of_the_folder_is_left_alone(store, out_dir):
    copy_points(store, out_dir, 5)
    make_point(out_dir, 10)
    fetch_newer(store.partial(ADDRESS), out_dir)
    assert find_point(out_dir / RESUME_FOLDER).step == 10


def test_copy_ahead_of_the_folder_takes_its_place(store, out_dir, tmp_path):
    make_point(out_dir, 5)
    shutil.copytree(out_dir, tmp_path / "elsewhere")
    copy_points(store, tmp_path / "elsewhere", 10)
    fetch_newer(store.partial(ADDRESS), out_dir)
    assert find_point(out_dir / RESUME_FOLDER).step == 10
    assert (out_dir / EVENTS_FILE).read_text() == "step 5\nstep 10\n"


@pytest.mark.parametrize("damage", ["changed", "longer", "gone"])
def test_tampered_copy_is_refused_and_nothing_of_it_arrives(store, out_dir, damage):
    copy_points(store, out_dir, 5)
    shutil.rmtree(out_dir)
    out_dir.mkdir()
    (name,) = (name for name in files_of(store, 5) if name.endswith("state.pt"))
    match damage:
        case "changed":
            tamper(store, name, b"state of step 6")
        case "longer":
            tamper(store, name, b"state of step 5, and more")
        case "gone":
            store.files.delete(name)
    with pytest.raises(TrainingError, match=r"state\.pt of the copied resume state .* delete the folder"):
        fetch_newer(store.partial(ADDRESS), out_dir)
    assert not list(out_dir.iterdir())
    # With a point of our own it is passed over.
    make_point(out_dir, 3)
    fetch_newer(store.partial(ADDRESS), out_dir)
    assert find_point(out_dir / RESUME_FOLDER).step == 3


def test_copy_whose_list_names_a_place_outside_is_refused(store, out_dir):
    copy_points(store, out_dir, 5)
    shutil.rmtree(out_dir)
    out_dir.mkdir()
    (copy,) = store.partial(ADDRESS).names()
    name = f"_partial/{ADDRESS}/{copy}/list.json"
    tamper(store, name, store.files.read(name)[0].replace(b'"path":".events', b'"path":"../.events'))
    with pytest.raises(TrainingError, match="of the copied resume state"):
        fetch_newer(store.partial(ADDRESS), out_dir)
    assert not list(out_dir.iterdir())


def test_half_uploaded_copy_is_no_copy_and_is_collected(store, out_dir):
    copy_points(store, out_dir, 5)
    store.files.create(f"_partial/{ADDRESS}/{resume_tag(7)}-0a/state.pt", b"half")
    shutil.rmtree(out_dir)
    out_dir.mkdir()
    fetch_newer(store.partial(ADDRESS), out_dir)
    assert find_point(out_dir / RESUME_FOLDER).step == 5
    assert list(store.collect_garbage(delete=True)) == [f"_partial/{ADDRESS}/{resume_tag(7)}-0a"]
    assert store.partial(ADDRESS).names(), "unfinished work stays"
    assert not list(store.collect_garbage(delete=True))


def test_copies_of_a_finished_artifact_are_collected_unless_it_is_worked_at(store, out_dir, tmp_path):
    copy_points(store, out_dir, 5)
    stage, key = ADDRESS.split("/")
    made_of = {"stage": stage, "version": 1, "config": {}, "inputs": {}}
    (tmp_path / "product").mkdir()
    store.commit(tmp_path / "product", made_of, key, label="", counts={}, runtime={}, provenance={})
    with store.lease(ADDRESS, lambda: False):
        assert not list(store.collect_garbage(delete=True))
    assert list(store.collect_garbage(delete=True)) == [f"_partial/{ADDRESS}"]
    assert not store.partial(ADDRESS).names()


class SlowState:
    """A store whose first copy goes on until it is let go."""

    def __init__(self):
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.copied = []

    def put(self, name, folder, given_up):
        self.begun.set()
        assert self.let_go.wait(30)
        if given_up():
            return
        self.copied.append((name.rpartition("-")[0], sorted(path.name for path in folder.rglob("*.pt"))))


def test_training_does_not_wait_and_points_overtaken_are_left_out(out_dir):
    state = SlowState()
    with pytest.raises(TrainingError), copying(state, out_dir) as on_point:
        for step in (5, 10, 15):
            make_point(out_dir, step)  # and removes the point before, which is still being copied
            on_point(step)
            assert state.begun.wait(30)
        state.let_go.set()
        raise TrainingError("machine lost")
    assert [tag for tag, _ in state.copied] == [resume_tag(5), resume_tag(15)]
    assert all(files == ["optimizer.pt", "state.pt"] for _, files in state.copied)


def test_copy_under_way_when_training_is_done_is_given_up(out_dir):
    state = SlowState()
    with copying(state, out_dir) as on_point:
        make_point(out_dir, 5)
        on_point(5)
        assert state.begun.wait(30)
        threading.Timer(0.2, state.let_go.set).start()
    assert state.copied == []
    assert sorted(path.name for path in out_dir.iterdir()) == sorted([EVENTS_FILE, RESUME_FOLDER])


def test_store_that_cannot_be_written_does_not_end_training(out_dir):
    class Broken:
        def put(self, name, folder, given_up):
            raise StoreError("the bucket is gone")

    with copying(Broken(), out_dir) as on_point:
        make_point(out_dir, 5)
        on_point(5)
