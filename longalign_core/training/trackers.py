"""Where the curves of a run go while it runs: a file of JSON lines, TensorBoard, Weights & Biases, MLflow.

All take a step's `scalars`. A run that goes on after a kill computes some steps again: no curve has
one twice. Addresses and keys of services are read from their own environment variables.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import orjson

from longalign_core.errors import InputError
from longalign_core.training.job import TrainingJob
from longalign_core.training.metrics import StepMetrics, scalars

log = logging.getLogger(__name__)

SCALARS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
# What has to be installed, and how it is asked for.
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow (or mlflow-skinny)"}


class Tracker(Protocol):
    """One place where curves go."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Add a step, counted from 1."""

    def close(self) -> None:
        """The run is over."""


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuse trackers whose package is missing, before anything is started.

    Raises:
        InputError: One is.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"LONGALIGN_TRACKERS names {name}, which is not installed; run `pip install {_PACKAGES[name]}`, "
                "or leave it out of LONGALIGN_TRACKERS"
            )


class Trackers:
    """All of a run, opened by one rank."""

    def __init__(self, job: TrainingJob, resumed: int) -> None:
        """Open them.

        Args:
            job: Names them.
            resumed: Steps that were done before this start; later ones come again.

        Raises:
            InputError: One cannot be opened.
        """
        self._open: dict[str, Tracker] = {"json lines": JsonLines(job.out_dir / SCALARS_FILE, resumed)}
        for name in job.trackers:
            try:
                self._open[name] = _KINDS[name](job, resumed)
            except Exception as error:
                raise InputError(
                    f"the tracker {name} cannot be opened ({type(error).__name__}: {error}); set what it asks for in "
                    "the environment, or leave it out of LONGALIGN_TRACKERS"
                ) from error

    def log(self, metrics: StepMetrics) -> None:
        """Add a step everywhere. A tracker that fails is given up with a warning: training is worth more."""
        values = scalars(metrics)
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(metrics.step, values)
            except Exception as error:
                log.warning("the tracker %s is left out from step %d on: %s", name, metrics.step, error)
                del self._open[name]

    def close(self) -> None:
        """Finish them all."""
        for name, tracker in self._open.items():
            try:
                tracker.close()
            except Exception as error:
                log.warning("the tracker %s was not closed: %s", name, error)


class JsonLines:
    """A file to follow with `tail -f`."""

    def __init__(self, file: Path, resumed: int) -> None:
        kept = [line for line in _whole_lines(file) if orjson.loads(line)["step"] <= resumed]
        unfinished = file.with_name(file.name + ".part")
        unfinished.write_bytes(b"".join(kept))
        unfinished.replace(file)
        self._file = file.open("ab")

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracker`."""
        self._file.write(orjson.dumps({"step": step, **values}, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()

    def close(self) -> None:
        """See `Tracker`."""
        self._file.close()


def _whole_lines(file: Path) -> list[bytes]:
    if not file.exists():
        return []
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


class TensorBoard:
    """Event files for `tensorboard --logdir`."""

    def __init__(self, job: TrainingJob, resumed: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Steps from `purge_step` on that a killed run wrote are hidden.
        self._writer = SummaryWriter(str(job.out_dir / TENSORBOARD_FOLDER), purge_step=resumed + 1)

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # what a kill leaves unwritten before a resume point would be missing for ever

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B whose id is that of the artifact, in the project WANDB_PROJECT, else longalign."""

    def __init__(self, job: TrainingJob, resumed: int) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "longalign"),
            id=_run_name(job),
            name=_run_name(job),
            resume="allow",
            config=job.config.model_dump(mode="json"),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracker`. A step that the run has already is passed over."""
        if step >= self._run.step:
            self._run.log(values, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


class MLflow:
    """A run of MLflow tagged with the artifact, in the experiment MLFLOW_EXPERIMENT_NAME, else longalign."""

    def __init__(self, job: TrainingJob, resumed: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "longalign")
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        own = f"tags.`longalign.run` = '{_run_name(job)}'"
        runs = self._client.search_runs([experiment], own, max_results=1)
        self._logged = 0
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            self._logged = max((one.step for one in self._client.get_metric_history(self._run, "loss")), default=0)
            return
        tags = {"longalign.run": _run_name(job)}
        self._run = self._client.create_run(experiment, run_name=_run_name(job), tags=tags).info.run_id
        values = job.config.model_dump(mode="json")
        self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in values.items()])

    def log(self, step: int, values: dict[str, float]) -> None:
        """See `Tracker`. MLflow would keep a step that comes again beside its first form."""
        from mlflow.entities import Metric

        if step > self._logged:
            now = int(1000 * time.time())
            self._client.log_batch(self._run, metrics=[Metric(name, one, now, step) for name, one in values.items()])

    def close(self) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self._run)


def _run_name(job: TrainingJob) -> str:
    return job.name.replace("/", "-")


_KINDS: dict[str, Callable[[TrainingJob, int], Any]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
