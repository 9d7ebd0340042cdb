"""Where a run's curves go, and what a run that goes on after a kill leaves there."""

from __future__ import annotations

import orjson
import pytest

from longalign_core.errors import InputError
from longalign_core.training.job import TrainingJob
from longalign_core.training.trackers import Trackers
from tests.measuring_run import made_up_steps
from tests.tiny_training import training_config


def job(folder, *trackers):
    return TrainingJob(
        plan=folder,
        tokens=folder,
        base_model=folder,
        out_dir=folder,
        config=training_config(folder),
        keep_steps=(),
        checkpoint_interval=1,
        gradient_checkpointing=False,
        deepspeed={},
        name="train/0123456789abcdef",
        trackers=trackers,
    )


def killed_and_resumed(folder, *trackers):
    """Six steps, a kill, and ten from the resume point after the fourth on."""
    steps = made_up_steps(10)
    first = Trackers(job(folder, *trackers), 0)
    for step in steps[:6]:
        first.log(step)
    second = Trackers(job(folder, *trackers), 4)
    for step in steps[4:]:
        second.log(step)
    second.close()


def test_json_lines_have_every_step_once_after_a_kill(tmp_path):
    steps = made_up_steps(10)
    first = Trackers(job(tmp_path), 0)
    for step in steps[:6]:
        first.log(step)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step":7,"lo')
    second = Trackers(job(tmp_path), 4)
    for step in steps[4:]:
        second.log(step)
    rows = [orjson.loads(line) for line in (tmp_path / "metrics.jsonl").read_bytes().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(step.step, step.loss) for step in steps]


def test_tensorboard_shows_every_step_once_after_a_kill(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed_and_resumed(tmp_path, "tensorboard")
    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    assert [event.step for event in curves.Scalars("loss")] == list(range(1, 11))
    assert [event.value for event in curves.Scalars("loss_by_length/64k-up")] == [1.5] * 10
    assert "idle_by_rank/predicted_1" in curves.Tags()["scalars"]


def test_tensorboard_folder_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "tensorboard").write_text("a file where the folder would be")
    with pytest.raises(InputError, match="the tracker tensorboard cannot be opened"):
        Trackers(job(tmp_path, "tensorboard"), 0)


def test_mlflow_run_goes_on_with_every_step_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    killed_and_resumed(tmp_path, "mlflow")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("longalign").experiment_id])
    assert run.info.run_name == "train-0123456789abcdef" and run.info.status == "FINISHED"
    assert [one.step for one in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 11))


def test_wandb_offline_run_is_written(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    killed_and_resumed(tmp_path, "wandb")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
