"""Training on several machines: two of them, real DeepSpeed over gloo, behind pdsh, mpirun and srun of ours."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import psutil
import pytest

from longalign_core.errors import TrainingError
from longalign_core.stage import publishing
from longalign_core.stages.training import train
from tests import fake_hosts
from tests.test_train_stage import (
    KeptModels,
    command_of,
    count_steps,
    inputs,
    read_steps,
    run_stage,
    runtime,
    workers_of,
)
from tests.tiny_training import training_config, write_model, write_plan, write_tokens

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_STEPS = 200
SECRET = "not-for-other-users"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two machines, and a training of many steps."""
    root = tmp_path_factory.mktemp("nodes")
    write_model(root / "base")
    store = write_tokens(root / "tokens", (7, 12, 30, 5))
    write_plan(root / "plan", store, ((0, 1), (2,), (3,)), packs_per_step=2, epochs=NUM_STEPS // 2)
    (root / "out").mkdir()
    (root / "hostfile").write_text("node-a slots=1\nnode-b slots=1\n")
    fake_hosts.install(root)
    hosts = subprocess.Popen([sys.executable, "-m", "tests.fake_hosts", str(root)], cwd=REPOSITORY)
    yield root
    hosts.kill()
    hosts.wait()


@pytest.fixture(autouse=True)
def environment(world, monkeypatch):
    monkeypatch.setenv("PATH", f"{world / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.chdir(REPOSITORY)


def several(world, launcher):
    return {
        "launcher": launcher,
        "hostfile": world / "hostfile",
        "nodes": 2,
        "ranks": 1,
        "network_interface": "lo",
        "master_address": "127.0.0.1",
    }


def processes_on_hosts(world):
    """What runs on the machines for this training."""
    lines = [(process, command_of(process)) for process in psutil.process_iter()]
    return [
        process
        for process, line in lines
        if any(str(world) in part for part in line) and any("longalign_core" in part for part in line)
    ]


class SmallDisk(KeptModels):
    """Lets no rank write a file as large as a resume point, as soon as the first model is there."""

    def __init__(self, world):
        super().__init__(world / "first")
        self.world = world

    def publish(self, stage, config, label, folder, counts):
        for worker in workers_of(processes_on_hosts(self.world)):
            worker.rlimit(psutil.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        return super().publish(stage, config, label, folder, counts)


RUN = """
import sys
from pathlib import Path
from tests import test_launch_nodes as t
world = Path(sys.argv[1])
t.run_stage(world, t.training_config(world / "base", keep_steps=(20,)), models="unused", **t.several(world, "pdsh"))
"""


def test_two_machines_disk_full_then_run_killed_then_finished_by_another_launcher(world):
    config = training_config(world / "base", keep_steps=(20,))

    # mpirun; the disk is full at a resume point after the first model.
    with (
        publishing(SmallDisk(world)),
        pytest.raises(
            TrainingError, match=r"no space left for the resume point after step \d+ in .*needs about 0.3 MB"
        ),
    ):
        train.function(config, inputs(world), world / "out", runtime(world, **several(world, "openmpi")))
    assert processes_on_hosts(world) == []
    points = sorted((world / "out" / ".resume").glob("*/resume.json"))
    assert points, "the points before are there"
    point = orjson.loads(points[-1].read_bytes())["step"]
    first = read_steps(world / "out")

    # pdsh; the whole run is killed, and every machine notices.
    events = world / "out" / ".events.jsonl"
    run = subprocess.Popen([sys.executable, "-c", RUN, str(world)], cwd=REPOSITORY)
    deadline = time.monotonic() + 120
    while count_steps(events) < len(first) + 8:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    on_hosts = [one for one in processes_on_hosts(world) if one.pid != run.pid]
    workers = workers_of(on_hosts)
    assert len(workers) == 4, "two ranks, each with the process that watches it"
    # A rank that hangs holds up the other one, so that the run is killed in the middle, and ignores TERM.
    max(workers, key=lambda worker: worker.create_time()).suspend()
    run.send_signal(signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(on_hosts, timeout=15)
    assert not alive, "a rank outlived its run by 15 seconds"
    second = read_steps(world / "out")[len(first) :]
    assert second[0]["step"] == point + 1, "it went on at the last point that was whole"

    # srun, to the end.
    counts, publisher = run_stage(world, config, **several(world, "slurm"))
    assert counts["steps"] == NUM_STEPS and publisher.labels[-1] == "final"
    third = read_steps(world / "out")[len(first) + len(second) :]
    assert 1 < third[0]["step"] <= second[-1]["step"] + 1, "it went on where the killed run had been"
    # Steps that were done again gave the same.
    again = {one["step"]: one["loss"] for one in first + second}
    for one in third:
        assert one["loss"] == again.get(one["step"], one["loss"])

    for program in fake_hosts.PROGRAMS:
        assert SECRET not in (world / f"{program}.called").read_text()
    assert not any(SECRET in file.read_text() for file in (world / "out" / ".start").rglob("*.json"))


def test_machine_that_never_starts_ends_the_others_and_is_named(world, tmp_path):
    (world / "down").write_text("node-b")
    changes = several(world, "pdsh") | {"communication_timeout_seconds": 5.0}
    try:
        with publishing(KeptModels(tmp_path)), pytest.raises(TrainingError, match=r"rank 1 never joined within 5 sec"):
            train.function(training_config(world / "base"), inputs(world), tmp_path, runtime(world, **changes))
    finally:
        (world / "down").unlink()
    assert "node-b" in " ".join(json.loads((world / "pdsh.called").read_text()))


def test_training_without_a_step_for_too_long_is_ended_with_the_setting(world, tmp_path):
    # No machine starts two ranks in half a second.
    with (
        publishing(KeptModels(tmp_path)),
        pytest.raises(TrainingError, match=r"no step for 0\.5 seconds before the first step \(LONGALIGN_STALL_SECONDS"),
    ):
        train.function(
            training_config(world / "base"), inputs(world), tmp_path, runtime(world, ranks=1, stall_seconds=0.5)
        )
    assert processes_on_hosts(tmp_path) == []
