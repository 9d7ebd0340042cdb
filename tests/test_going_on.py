"""A killed training goes on as if nothing had been: same data, same losses, on the same ranks and on others."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError, TrainingError
from longalign_core.store import Store
from longalign_core.supervise import supervised
from longalign_core.training.copies import copying, fetch_newer
from longalign_core.training.deepspeed_config import deepspeed_config, num_data_ranks
from longalign_core.training.going_on import go_on
from longalign_core.training.job import EVENTS_FILE, RESUME_FOLDER, EventReader, TrainingJob
from longalign_core.training.launch import read_metrics, worker_environment
from longalign_core.training.resume import resume_tag
from tests.tiny_training import training_config, write_model, write_plan, write_tokens

pytestmark = pytest.mark.slow

LENGTHS = (7, 12, 30, 5, 9, 3, 21, 16, 2, 11)
# Three steps of four slots; one has an empty slot, the last one sequence for all ranks.
PACKS = ((0, 1), (2,), (3, 4, 5), (6, 8), (7,), (), (9,), (1, 3), (2,))
NUM_STEPS = 9
INTERVAL = 2
# ZeRO stage, ranks before and after the kill. Without ZeRO each rank has the whole state.
SAME_RANKS = ((1, 2, 2), (2, 2, 2), (3, 2, 2))
OTHER_RANKS = ((2, 2, 1), (1, 1, 2), (3, 2, 4), (0, 2, 1))


class World:
    """Jobs on one tiny model; ranks are started by one process for many jobs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        store = write_tokens(root / "tokens", LENGTHS)
        write_plan(root / "plan", store, PACKS, packs_per_step=4, epochs=3)
        # With dropout, so that random numbers have to be the same too.
        self.model = write_model(root / "model", dropout=0.1)

    def job(self, name: str, stage: int, ranks: int, **changes) -> tuple[TrainingJob, Runtime]:
        config = training_config(self.model, **changes)
        runtime = Runtime(ranks=ranks, gpus=0, zero_stage=stage, scratch=self.root / "scratch")
        rendered = deepspeed_config(config, runtime, 4, num_data_ranks(runtime, 4))
        if stage == 3:  # parameters this small would not be partitioned
            rendered["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        (self.root / name).mkdir(exist_ok=True)
        job = TrainingJob(
            plan=self.root / "plan",
            tokens=self.root / "tokens",
            base_model=self.model,
            out_dir=self.root / name,
            config=config,
            keep_steps=(),
            checkpoint_interval=INTERVAL,
            gradient_checkpointing=False,
            deepspeed=rendered,
        )
        return job, runtime

    def run(self, *started: tuple[TrainingJob, Runtime, int | None]) -> None:
        spec = []
        for number, (job, runtime, kill_at) in enumerate(started):
            file = self.root / f"job-{number}.json"
            file.write_text(job.model_dump_json())
            spec.append({"job": str(file), "ranks": runtime.ranks, "kill_at": kill_at})
        (self.root / "spec.json").write_text(json.dumps(spec))
        environment = worker_environment(os.environ, ranks=2, on_gpu=False, extensions=self.root / "extensions")
        command = [sys.executable, "-m", "tests.resume_process", str(self.root / "spec.json")]
        log, repository = self.root / "log", Path(__file__).resolve().parent.parent
        with supervised(command, env=environment, log=log, cwd=repository) as process:
            try:
                code = process.wait(900)
            except subprocess.TimeoutExpired:
                code = None
        assert code == 0, log.read_text()[-4000:]

    def steps(self, name: str) -> list[int]:
        """Steps in the order they were computed, those done again included."""
        return [one["step"] for one in EventReader(self.root / name / EVENTS_FILE).new() if one["event"] == "step"]


def last_point(killed_at: int) -> int:
    return killed_at - killed_at % INTERVAL


def key(stage: int, before: int, after: int) -> str:
    return f"zero-{stage}-{before}-to-{after}"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """All runs: uninterrupted ones, killed ones, and those gone on, on the same ranks or others."""
    world = World(tmp_path_factory.mktemp("going-on"))
    draw = random.Random(0)
    cases = SAME_RANKS + OTHER_RANKS
    layouts = sorted({case[:2] for case in cases})
    whole = [(*world.job(f"whole-{stage}-{ranks}", stage, ranks), None) for stage, ranks in layouts]
    # Any step with a point behind it, and one to come.
    world.kills = {layout: draw.randrange(INTERVAL, NUM_STEPS - 2) for layout in layouts}
    killed = [
        (*world.job(f"killed-{stage}-{ranks}", stage, ranks), world.kills[stage, ranks]) for stage, ranks in layouts
    ]
    world.run(*whole, *killed)
    gone_on = []
    for stage, before, after in cases:
        name = key(stage, before, after)
        shutil.copytree(world.root / f"killed-{stage}-{before}", world.root / name)
        job, runtime = world.job(name, stage, after)
        gone_on.append((go_on(job, runtime), runtime, None))
    # The scratch folder is lost, and its copy in the store is there.
    store = Store(str(world.root / "store"), world.root / "fetched").partial("train/0123456789abcdef")
    with pytest.raises(TrainingError), copying(store, world.root / "killed-2-2") as on_point:
        on_point(last_point(world.kills[2, 2]))
        raise TrainingError("the machine is gone")
    job, runtime = world.job("vanished", 2, 2)
    fetch_newer(store, job.out_dir)
    gone_on.append((go_on(job, runtime), runtime, None))
    world.run(*gone_on)
    return world


def measured(world, name):
    return [
        (one.step, one.tokens, one.num_sequences, one.learning_rate, one.loss, one.grad_norm, one.bucket_losses)
        for one in read_metrics(world.root / name)
    ]


@pytest.mark.parametrize("case", SAME_RANKS, ids=lambda case: key(*case))
def test_killed_run_on_the_same_ranks_goes_on_bit_for_bit(world, case):
    assert measured(world, key(*case)) == measured(world, f"whole-{case[0]}-{case[1]}")


def test_killed_run_whose_folder_vanished_goes_on_from_its_copy_bit_for_bit(world):
    assert measured(world, "vanished") == measured(world, "whole-2-2")


@pytest.mark.parametrize("case", SAME_RANKS + OTHER_RANKS, ids=lambda case: key(*case))
def test_killed_run_goes_on_at_its_last_point(world, case):
    killed_at = world.kills[case[:2]]
    again = range(last_point(killed_at) + 1, NUM_STEPS + 1)
    assert world.steps(key(*case)) == [*range(1, killed_at + 1), *again]


@pytest.mark.parametrize("case", OTHER_RANKS, ids=lambda case: key(*case))
def test_killed_run_on_another_number_of_ranks_goes_on_with_the_same_losses(world, case):
    found, expected = measured(world, key(*case)), measured(world, f"whole-{case[0]}-{case[1]}")
    assert [one[:4] for one in found] == [one[:4] for one in expected]
    for (*_, loss, norm, _), (*_, expected_loss, expected_norm, _) in zip(found, expected, strict=True):
        assert loss == pytest.approx(expected_loss, abs=1e-6)
        assert norm == pytest.approx(expected_norm, rel=1e-5)


def test_points_of_other_ranks_are_replaced_and_no_converted_one_stays(world):
    folders = [path.name for path in (world.root / key(2, 2, 1) / RESUME_FOLDER).iterdir() if path.is_dir()]
    assert sorted(folders) == [resume_tag(NUM_STEPS - 3), resume_tag(NUM_STEPS - 1)]


@pytest.mark.parametrize(("stage", "before", "after_stage"), [(2, 2, 3), (3, 2, 2), (0, 2, 2), (2, 2, 0)])
def test_point_that_cannot_be_converted_is_refused_and_stays(world, stage, before, after_stage):
    name = f"whole-{stage}-{before}"
    job, runtime = world.job(name, after_stage, 2)
    with pytest.raises(InputError, match=f"step 8 on 2 ranks under ZeRO-{stage} and cannot .* ZeRO-{after_stage}: "):
        go_on(job, runtime)
    assert (world.root / name / RESUME_FOLDER / resume_tag(8)).is_dir()
