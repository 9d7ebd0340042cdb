"""The stage through batches, killed at every exchange with the provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from longalign_core.errors import WaitingError
from tests.fake_batch_server import FakeBatchServer
from tests.fake_chat_server import generic_reply
from tests.test_stage_instruct_batches import run

CLIENT = """
import sys
from pathlib import Path
from longalign_core.errors import WaitingError
from tests.test_stage_instruct_batches import run

sys.stdin.readline()
try:
    run(Path(sys.argv[1]), sys.argv[2])
except WaitingError as error:
    sys.exit(4)
"""


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.slow
def test_instruct_in_batches_killed_again_and_again_pays_nothing_twice(tmp_path, phase):
    with FakeBatchServer() as server:
        server.answer = generic_reply
        server.at_once = True
        codes = []
        for exchange in range(12):
            client = subprocess.Popen(
                [sys.executable, "-c", CLIENT, str(tmp_path), server.root], stdin=subprocess.PIPE, env=dict(os.environ)
            )
            server.kill(client.pid, exchange, phase)
            client.communicate(b"\n", timeout=60)
            codes.append(client.returncode)
            if client.returncode == 0:
                break
        assert codes.count(-signal.SIGKILL) > 3
        for _ in range(5):
            try:
                run(tmp_path, server.root)
                break
            except WaitingError:
                pass
        assert set(server.times_sent.values()) == {1}
    spent = json.loads((tmp_path / "out" / "spending.json").read_text())
    assert (spent["total"]["calls"], spent["total"]["tokens"], spent["total"]["num_open"]) == (12, 120, 0)
