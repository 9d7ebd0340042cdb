"""Engines: order, failures, and what is left when a run is killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.corpora.shards import read_shard
from longalign_core.engine import Engine, InProcess, LocalProcesses, current_engine
from longalign_core.errors import DataError, InputError, LongAlignError, WorkerError
from tests.engine_jobs import die, fail, shard_jobs, square, write_pid_and_hang

REPOSITORY = Path(__file__).resolve().parent.parent


def run(engine: Engine, function: Callable, jobs: list, look: Callable[[], None] = lambda: None) -> list:
    return list(engine.run(function, jobs, label="work", look=look))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    """Processes that other tests left to the end of the session (a fork server) are none of the pool."""
    OTHERS.update(child.pid for child in psutil.Process().children(recursive=True))
    yield
    OTHERS.clear()


OTHERS: set[int] = set()


def our_children() -> list[psutil.Process]:
    """Processes of the pool; the resource tracker of multiprocessing stays for as long as we do."""
    children = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.pid in OTHERS:
                continue
            if child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(child.cmdline()):
                children.append(child)
        except psutil.NoSuchProcess:
            continue
    return children


@pytest.mark.parametrize("engine", [InProcess(), LocalProcesses(2)], ids=["in process", "processes"])
def test_engine_gives_results_in_the_order_of_jobs_and_looks(engine):
    looks = []
    assert run(engine, square, list(range(7)), look=lambda: looks.append(1)) == [n * n for n in range(7)]
    assert len(looks) >= 7
    assert run(engine, square, []) == []


@pytest.mark.parametrize("engine", [InProcess(), LocalProcesses(2)], ids=["in process", "processes"])
def test_engine_failing_job_raises_its_own_error_after_the_results_before_it(engine):
    results = engine.run(fail, [0, 1, 2, 3], label="work", look=lambda: None)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(DataError, match="the second cannot be used"):
        next(results)
    assert run(engine, square, [3]) == [9]


def test_local_processes_one_that_dies_is_one_sentence_and_the_next_run_works():
    with pytest.raises(WorkerError, match=r"work ended without a result.*LONGALIGN_WORKERS"):
        run(LocalProcesses(2), die, [0, 1, 2])
    assert run(LocalProcesses(2), square, [3]) == [9]


@pytest.mark.slow
def test_local_processes_shared_by_threads_one_breaking_does_not_hang_the_others():
    outcomes: list[object] = []

    def stage(function: Callable) -> None:
        for _ in range(3):
            try:
                outcomes.append(run(LocalProcesses(2), function, [0, 1, 3]))
            except LongAlignError as error:
                outcomes.append(type(error))

    threads = [threading.Thread(target=stage, args=(function,)) for function in (square, die, square)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(outcomes) == 9
    assert all(outcome in ([0, 1, 9], WorkerError) for outcome in outcomes)
    assert run(LocalProcesses(2), square, [3]) == [9]
    wait_until(lambda: not our_children(), "the end of the pool")


def test_local_processes_left_early_ends_what_is_under_way(tmp_path):
    results = LocalProcesses(2).run(write_pid_and_hang, [tmp_path] * 3, label="work", look=interrupt_when(tmp_path, 2))
    with pytest.raises(KeyboardInterrupt):
        next(results)
    wait_until(lambda: not our_children(), "the end of the pool")


def interrupt_when(folder: Path, num_files: int) -> Callable[[], None]:
    def look() -> None:
        if len(list(folder.iterdir())) == num_files:
            raise KeyboardInterrupt

    return look


def test_engine_of_a_cluster_without_prefect_is_refused_with_the_remedy():
    with pytest.raises(InputError, match="PREFECT_API_URL"):
        current_engine(Runtime(engine="dask"))


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.engine_jobs", *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True)


def gone(pids: list[int]) -> bool:
    return not any(alive(pid) for pid in pids)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # perhaps gone between one look and the next
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_local_processes_end_when_their_parent_is_killed(tmp_path, how):
    process = start("hang", tmp_path)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "two jobs under way")
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(children) >= 2
    process.send_signal(how)
    process.wait(15)
    wait_until(lambda: gone(children), "the end of every child", 15)


def write_corpus(folder: Path, num_files: int = 6, lines_a_file: int = 900) -> Path:
    """About 4 MB of JSON lines; one line in fifty is broken."""
    draw = random.Random(5)
    folder.mkdir()
    words = ["long", "align", "corpus", "instruction", "tuning", "document", "naïve", "文档"]
    for number in range(num_files):
        with (folder / f"{number}.jsonl").open("w", encoding="utf-8") as file:
            for line in range(lines_a_file):
                text = " ".join(draw.choices(words, k=100))
                file.write("{broken\n" if line % 50 == 7 else json.dumps({"text": text}) + "\n")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finished_parts(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*/*.parquet")}


@pytest.mark.slow
def test_shards_of_any_engine_have_the_same_bytes(tmp_path):
    location = write_corpus(tmp_path / "corpus")
    for name, engine in (("one", InProcess()), ("two", LocalProcesses(2))):
        jobs = shard_jobs(location, tmp_path / name)
        assert len(jobs) == 6
        states = run(engine, read_shard, jobs)
        assert sum(state.num_documents for state in states) == 6 * 882
        assert min(state.num_parts for state in states) >= 4
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.slow
def test_shards_killed_twice_and_gone_on_with_have_the_bytes_of_an_undisturbed_run(tmp_path):
    location = write_corpus(tmp_path / "corpus")
    run(InProcess(), read_shard, shard_jobs(location, tmp_path / "undisturbed"))
    folder = tmp_path / "killed"
    parts_before: dict[Path, tuple[int, int]] = {}
    for _ in range(2):
        wanted = len(parts_before) + 2
        process = start("shards", location, folder)

        def gone_on(process=process, wanted=wanted) -> bool:
            assert process.poll() is None, "the run ended before it could be killed"
            return sum(map(counted, finished_parts(folder))) >= wanted

        wait_until(gone_on, "two further parts")
        os.kill(process.pid, signal.SIGKILL)
        children = [child.pid for child in psutil.process_iter() if group_of(child.pid) == process.pid]
        process.wait()
        wait_until(lambda children=children: gone(children), "the end of every child", 15)
        sound = {path: stamp for path, stamp in finished_parts(folder).items() if counted(path)}
        assert parts_before.items() <= sound.items()
        assert len(sound) > len(parts_before)
        parts_before = sound
    assert digests(folder) != digests(tmp_path / "undisturbed")
    assert start("shards", location, folder).wait(60) == 0
    assert parts_before.items() <= finished_parts(folder).items()
    assert digests(folder) == digests(tmp_path / "undisturbed")


def group_of(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def counted(part: Path) -> bool:
    """Whether the shard's state knows of a part: one that was written just before a kill is made again."""
    state = part.parent / "state.json"
    return state.exists() and int(part.stem.split("-")[1]) < json.loads(state.read_bytes())["num_parts"]
