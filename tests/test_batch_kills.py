"""SIGKILL at every exchange of a run with the provider: the next run goes on, and nothing is submitted twice."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from longalign_core.chat_client import ResponseStore
from tests.batch_setup import APIS, outcomes_of, submit_in_process, work_in_process
from tests.fake_batch_server import FakeBatchServer, words_of

pytestmark = pytest.mark.slow
_NUM_TASKS = 4


def _process(work: Callable[..., None], *arguments: object) -> BaseProcess:
    """A process that begins without threads of the tests, and quickly."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.batch_setup", "longalign_core.chat_client.openai_batch"])
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def _killed(server: FakeBatchServer, api: str, folder: Path, exchange: int, phase: str) -> bool:
    """Run a process that is killed at an exchange; False when it ended before."""
    may_begin = multiprocessing.get_context("forkserver").Event()
    process = _process(work_in_process, server.root, api, folder, _NUM_TASKS, may_begin.wait)
    server.kill(process.pid, exchange, phase)
    may_begin.set()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("api", APIS)
def test_run_killed_at_any_exchange_goes_on_and_submits_nothing_twice(api, phase, tmp_path):
    exchange = 0
    while True:
        folder = tmp_path / str(exchange)
        with FakeBatchServer() as server:
            server.at_once = True
            was_killed = _killed(server, api, folder, exchange, phase)
            with ResponseStore(folder / "replies.sqlite") as responses:
                outcomes, error = outcomes_of(server.root, api, responses, folder / "batches", _NUM_TASKS, 60)
            assert error is None
            assert len(outcomes) == _NUM_TASKS
            assert len(server.times_sent) == 2 * _NUM_TASKS
            assert set(server.times_sent.values()) == {1}, f"killed {phase} exchange {exchange}"
            assert not list((folder / "batches").glob("*.part*"))
        if not was_killed:
            break
        exchange += 1
    # Two batches, each with at least: the newest, the submission, its status, its results.
    assert exchange >= 8


@pytest.mark.parametrize("api", APIS)
def test_run_killed_within_results_keeps_what_it_stored(api, tmp_path):
    with FakeBatchServer() as server, ResponseStore(tmp_path / "replies.sqlite") as responses:
        server.at_once = True
        # Long replies, so that half of the results are more than one reading.
        server.answer = lambda body: words_of(body) if "answer" in words_of(body) else "long " * 50_000
        may_begin = multiprocessing.get_context("forkserver").Event()
        process = _process(work_in_process, server.root, api, tmp_path, 8, may_begin.wait)
        server.kill_within_results(process.pid, lambda: len(responses) >= 2)
        may_begin.set()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert 2 <= len(responses) < 8
        outcomes, error = outcomes_of(server.root, api, responses, tmp_path / "batches", 8, 60)
        assert (len(outcomes), error) == (8, None)
        assert set(server.times_sent.values()) == {1}


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_submit_ten_times_as_many_long_requests_takes_no_more_memory(api, tmp_path):
    peaks = []
    for num_requests in (100, 1000):
        folder = tmp_path / str(num_requests)
        folder.mkdir()
        with FakeBatchServer() as server:
            process = _process(submit_in_process, server.root, api, folder, num_requests, 64_000)
            process.join(120)
            assert process.exitcode == 0
            assert len(server.times_sent) == num_requests
        peaks.append(float((folder / "peak").read_text()))
    # 58 MB more of requests; the keys and buffers of a part are a few.
    assert peaks[1] - peaks[0] < 20
