"""The archive and SIGKILL: whatever was reported is there, and nothing that is there is asked again."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from longalign_core.chat_client.calls import ChatRequest
from longalign_core.config.runtime import Runtime
from tests.archive_setup import machine, names, num_waiting, opened_calls, request_about

NUM_CALLS = 150
# Asks what it has no reply to, and says what it asks and what it has kept.
WORKER = """
import os, sys
from pathlib import Path
from longalign_core.chat_client.calls import ChatRequest
from longalign_core.config.runtime import Runtime
from tests.archive_setup import opened_calls, reply_of, request_about

said = 0

def say(*words):
    global said
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())  # whole or not at all, whenever it is killed
    said += 1
    if said > 8:
        os.read(0, 1)  # never far ahead of who reads: however fast this is, a kill comes in the middle

folder, store, num_calls = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with opened_calls("instruct", "m", Runtime(scratch=folder, store=store), save_seconds=0.01) as calls:
    say("open")
    for number in range(num_calls):
        request = request_about(number, f"Document {number // 5}. " * 500)
        if calls.responses.get(request.key) is None:
            say("asked", number)
            calls.responses.put_note(f"draw {number}", str(number))
            calls.responses.put(request, reply_of(f"words {number}"))
            say("kept", number)
"""


def call_of(number: int) -> ChatRequest:
    """The request of this number that the worker makes."""
    return request_about(number, f"Document {number // 5}. " * 500)


class Work:
    """Runs of the worker, one after the other, and what they said."""

    def __init__(self, store: str) -> None:
        self.store = store
        self.asked: list[int] = []
        self.kept: set[int] = set()
        self.repeated: list[int] = []

    def run(self, scratch: Path, num_lines: int | None = None, wait_seconds: float = 0.0) -> int:
        """Run to the end, or kill after so many lines and a little while."""
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(scratch), self.store, str(NUM_CALLS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ,
        )
        before = set(self.kept)
        with process:
            for number, line in enumerate(process.stdout):
                self._note(line.decode(), before)
                if number == num_lines:
                    time.sleep(wait_seconds)
                    process.kill()
                with suppress(BrokenPipeError):
                    os.write(process.stdin.fileno(), b".")
            return process.wait(timeout=60)

    def _note(self, line: str, before: set[int]) -> None:
        word, _, number = line.strip().partition(" ")
        if word == "asked":
            self.asked.append(int(number))
            self.repeated += [int(number)] if int(number) in before else []
        elif word == "kept":
            self.kept.add(int(number))


@pytest.mark.slow
def test_archive_worker_killed_at_random_asks_nothing_again_that_it_kept(tmp_path, store_url):
    draw = random.Random(4)
    work, scratch = Work(store_url), tmp_path / "one"
    codes = [work.run(scratch, draw.randrange(30), draw.random() * 0.05) for _ in range(8)]
    assert set(codes) == {-9}
    assert work.run(scratch) == 0
    assert work.repeated == []
    assert set(work.asked) == set(range(NUM_CALLS))
    # Of a call under way at a kill nobody said whether it was kept.
    assert len(work.kept) >= NUM_CALLS - len(codes)
    assert len(work.asked) <= NUM_CALLS + len(codes)

    num_asked = len(work.asked)
    shutil.rmtree(scratch)
    assert work.run(tmp_path / "new machine") == 0
    assert len(work.asked) == num_asked
    with opened_calls("instruct", "m", Runtime(scratch=tmp_path / "third", store=store_url)) as calls:
        assert len(calls.responses) == NUM_CALLS
        for number in range(NUM_CALLS):
            request = call_of(number)
            assert calls.responses.get(request.key).text == f"words {number}"
            assert calls.request_of(request.key) == request
            assert calls.responses.note(f"draw {number}") == str(number)


@pytest.mark.slow
def test_archive_machine_lost_in_the_middle_repeats_no_call_that_was_archived(tmp_path, store_url):
    draw = random.Random(5)
    work = Work(store_url)
    for attempt in range(4):
        with opened_calls("instruct", "m", Runtime(scratch=tmp_path / f"look {attempt}", store=store_url)) as calls:
            archived = [number for number in range(NUM_CALLS) if calls.responses.get(call_of(number).key)]
        work.asked.clear()
        work.run(tmp_path / f"machine {attempt}", 20 + draw.randrange(60), draw.random() * 0.05)
        assert set(work.asked).isdisjoint(archived)
    assert archived


# Saves, and is killed just before or just after the first object under a folder is created.
SAVER = """
import os, signal, sys
from pathlib import Path
from longalign_core.chat_client.archive import Archive
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.store.files import open_files
from tests.archive_setup import SHELF, opened_calls, reply_of, request_about

scratch, store, folder, moment = sys.argv[1:]
objects = open_files(store)

class Deadly:
    url, read, sizes = objects.url, objects.read, objects.sizes

    def create(self, name, data):
        if f"/{folder}/" in name and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        objects.create(name, data)
        if f"/{folder}/" in name and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)

with ResponseStore(Path(scratch) / "responses" / "instruct.sqlite", SHELF) as responses:
    for number in range(5):
        responses.put(request_about(number), reply_of(f"words {number}"))
    Archive(Deadly(), SHELF, (responses,), texts=responses).save()
"""


@pytest.mark.parametrize(
    ("folder", "moment", "num_texts", "num_segments"),
    [("texts", "after", 1, 0), ("replies", "before", 1, 0), ("replies", "after", 1, 1)],
)
def test_archive_save_killed_between_its_steps_is_made_good_by_the_next(
    tmp_path, store_url, folder, moment, num_texts, num_segments
):
    scratch = tmp_path / "one"
    command = [sys.executable, "-c", SAVER, str(scratch), store_url, folder, moment]
    assert subprocess.run(command, env=os.environ, timeout=60).returncode == -9
    assert num_waiting(scratch / "responses" / "instruct.sqlite") == 5
    with machine(scratch, store_url) as one:
        assert (len(names(one.objects, "texts")), len(names(one.objects, "replies"))) == (num_texts, num_segments)
        one.archive.fetch()
        one.archive.save()
        assert (len(names(one.objects, "texts")), len(names(one.objects, "replies"))) == (1, 1)
    assert num_waiting(scratch / "responses" / "instruct.sqlite") == 0
    with machine(tmp_path / "two", store_url) as two:
        two.archive.fetch()
        assert two.texts(*range(5)) == [f"words {number}" for number in range(5)]
        assert two.responses.request_of(request_about(2).key, two.archive.text) == request_about(2)
