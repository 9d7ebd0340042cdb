"""SIGKILL at every exchange of a run with the provider: the next run goes on, and nothing is submitted twice."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

import pytest

from longalign_core.chat_client import ResponseStore
from tests.batch_setup import APIS, outcomes_of, work_in_process
from tests.fake_batch_server import FakeBatchServer

pytestmark = pytest.mark.slow
_NUM_TASKS = 4


def _killed(server: FakeBatchServer, api: str, folder: Path, exchange: int, phase: str) -> bool:
    """Run a process that is killed at an exchange; False when it ended before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.batch_setup", "longalign_core.chat_client.openai_batch"])
    may_begin = context.Event()
    process = context.Process(target=work_in_process, args=(server.root, api, folder, _NUM_TASKS, may_begin.wait))
    process.start()
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
