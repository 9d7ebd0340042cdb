"""Models of a training run on their way into the store, while training goes on."""

from __future__ import annotations

import contextvars
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson

from longalign_core.config.training import CheckpointConfig
from longalign_core.stage import Counts, Publisher, Stage
from longalign_core.training.job import PUBLISHED_FILE

if TYPE_CHECKING:
    from longalign_core.training.job import TrainingJob

log = logging.getLogger(__name__)


class KeptModels:
    """Publishes model folders one after the other in a thread, and remembers across kills which ones.

    A folder that is published is removed; one that is not stays for the next start. Leaving the context waits
    for the models that were handed in, except when the run is cancelled: then only the one under way is
    brought to its end.

    Args:
        job: The training.
        stage: Of which each model becomes a product.
        steps: Steps kept by their number.
        num_steps: Steps of the plan; the model after the last is also kept as final.
        finish: Brings a folder into the form that is published, given its step; returns counts of the product.
        publisher: Commits products.
    """

    def __init__(
        self,
        job: TrainingJob,
        stage: Stage[CheckpointConfig],
        *,
        steps: tuple[int, ...],
        num_steps: int,
        finish: Callable[[Path, int], Counts],
        publisher: Publisher,
    ) -> None:
        self._job, self._stage, self._publisher, self._finish = job, stage, publisher, finish
        self._steps, self._num_steps = steps, num_steps
        self._file = job.out_dir / PUBLISHED_FILE
        self.listed: list[dict[str, Any]] = orjson.loads(self._file.read_bytes()) if self._file.exists() else []
        published = {one["after"] for one in self.listed}
        waiting = [step for step in job.keep_steps if step not in published]
        self._written = [step for step in waiting if job.model_folder(step).is_dir()]
        self.missing = tuple(step for step in waiting if step not in self._written)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._handed_in: list[Future[None]] = []

    def __enter__(self) -> Self:
        for step in self._written:
            self.hand_in(step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._thread.shutdown(wait=False, cancel_futures=True)
            return
        self._thread.shutdown()
        if error is None:
            self.check()

    def hand_in(self, step: int) -> None:
        """Have the model after `step` optimizer steps published; returns at once."""
        # In a copy of the context, so that the thread's log goes where the run's does.
        self._handed_in.append(self._thread.submit(contextvars.copy_context().run, self._publish, step))

    def check(self) -> None:
        """Raise what kept a model from being published."""
        for one in self._handed_in:
            if one.done():
                one.result()

    def _publish(self, step: int) -> None:
        if any(one.done() and one.exception() for one in self._handed_in):
            return  # in order: what a later start publishes comes after the one that failed
        folder = self._job.model_folder(step)
        counts = self._finish(folder, step)
        names = [CheckpointConfig(step=step)] if step in self._steps else []
        names += [CheckpointConfig(step="final")] if step == self._num_steps else []
        new = []
        for name in names:
            artifact = self._publisher.publish(self._stage, name, str(name.step), folder, counts)
            log.info("published the model after step %d: %s", step, artifact.address)
            new.append({"step": name.step, "address": artifact.address, "after": step})
        self.listed = [one for one in self.listed if one["after"] != step] + new
        unfinished = self._file.with_suffix(".part")
        unfinished.write_bytes(orjson.dumps(self.listed))
        unfinished.replace(self._file)
        shutil.rmtree(folder, ignore_errors=True)
