"""The shards of a stage as task runs on a Dask or Ray cluster."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner

from longalign_core.config import Runtime
from longalign_core.engine import SECONDS_BETWEEN_LOOKS, Job, Result, using
from longalign_core.errors import InputError, LongAlignError, WorkerError

# Corpora are ingested at the same time, and each would start a cluster with all of this machine's workers.
_one_local_cluster = threading.Lock()


def engine_of(runtime: Runtime) -> AbstractContextManager[None]:
    """Make the runtime's cluster the engine of the stages in the block; nothing where it names none.

    Raises:
        InputError: The engine's packages are not installed.
    """
    return nullcontext() if runtime.engine == "local" else using(ClusterEngine(runtime))


class ClusterEngine:
    """Each job is a task run of its own; see `longalign_core.engine.Engine`."""

    def __init__(self, runtime: Runtime) -> None:
        """Set up inside a task run; nothing is started yet."""
        self._runtime = runtime
        self._new_runner = {"dask": _dask_runner, "ray": _ray_runner}[runtime.engine](runtime)

    def run(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], *, label: str, look: Callable[[], None]
    ) -> Iterator[Result]:
        """See `Engine`.

        Raises:
            InputError: The scheduler does not answer, or a worker does not see the scratch folder.
            WorkerError: A worker ended without a result.
        """
        one_at_a_time = nullcontext() if self._runtime.engine_address else _one_local_cluster
        with one_at_a_time, _started(self._new_runner(), self._runtime) as runner, _mark(self._runtime) as mark:
            futures = []
            try:
                for number, job in enumerate(jobs, start=1):
                    name = f"{label} {number}/{len(jobs)}"
                    named = work_on.with_options(name=name, task_run_name=name)
                    futures.append(runner.submit(named, {"function": function, "job": job, "mark": mark}))
                for future in futures:
                    yield _result(future, label, look)
            finally:
                mark.unlink()
                if self._runtime.engine_address:  # a cluster of our own ends with the block
                    for future in futures:
                        future.wait()


# A job that failed is gone on with when the stage is started again: at once it would fail again.
@task(cache_policy=NO_CACHE, persist_result=False, retries=0)
def work_on(function: Callable[[Any], Any], job: Any, mark: Path) -> Any:
    """Do one job on a worker, as long as the run that asked for it is under way.

    Args:
        function: Of a module that the worker can import.
        job: Its only argument.
        mark: File in the scratch folder that is there while the run is.
    """
    if not mark.parent.is_dir():
        error = InputError(
            f"the worker on {socket.gethostname()} does not see the scratch folder {mark.parent}; give all workers "
            "LONGALIGN_SCRATCH under the same path, or set LONGALIGN_ENGINE=local"
        )
        return Failed(message=str(error), data=error)
    if not mark.exists():
        return Completed(message="not needed any more")
    try:
        return function(job)
    except LongAlignError as error:
        return Failed(message=str(error), data=error)


def _result(future: PrefectFuture[Any], label: str, look: Callable[[], None]) -> Any:
    while True:
        try:
            # A failed job's error is returned, so that its TimeoutError is not taken for ours.
            result = future.result(timeout=SECONDS_BETWEEN_LOOKS, raise_on_failure=False)
        except TimeoutError:
            look()
            continue
        except Exception as error:
            raise WorkerError(
                f"a worker of {label} ended without a result ({type(error).__name__}: {error}), as one does that runs "
                "out of memory; give workers more of it, then run again: what is done is kept"
            ) from error
        look()
        if isinstance(result, BaseException):
            raise result
        return result


@contextmanager
def _mark(runtime: Runtime) -> Iterator[Path]:
    folder = runtime.scratch.absolute() / "engine"
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / uuid.uuid4().hex
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


@contextmanager
def _started(runner: TaskRunner[Any], runtime: Runtime) -> Iterator[TaskRunner[Any]]:
    try:
        runner.__enter__()
        if runtime.engine == "dask":
            runner.client  # noqa: B018 -- connects, which would else happen with the first job
    except Exception as error:
        where = runtime.engine_address or "this machine"
        raise InputError(
            f"no {runtime.engine} cluster answers on {where} ({type(error).__name__}: {error}); start one there, "
            "correct LONGALIGN_ENGINE_ADDRESS, or set LONGALIGN_ENGINE=local"
        ) from error
    try:
        yield runner
    finally:
        runner.__exit__(None, None, None)


def _dask_runner(runtime: Runtime) -> Callable[[], TaskRunner[Any]]:
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise _not_installed("dask") from None
    if runtime.engine_address:
        return lambda: DaskTaskRunner(address=runtime.engine_address)
    cluster = {
        "n_workers": runtime.workers,
        "threads_per_worker": 1,
        "processes": True,
        "dashboard_address": None,
        "local_directory": str(runtime.scratch.absolute() / "engine"),
    }
    return lambda: DaskTaskRunner(cluster_kwargs=cluster)


def _ray_runner(runtime: Runtime) -> Callable[[], TaskRunner[Any]]:
    try:
        from prefect_ray import RayTaskRunner
    except ImportError:
        raise _not_installed("ray") from None
    if runtime.engine_address:
        return lambda: RayTaskRunner(address=runtime.engine_address)
    return lambda: RayTaskRunner(init_kwargs={"num_cpus": runtime.workers, "include_dashboard": False})


def _not_installed(engine: str) -> InputError:
    return InputError(
        f"LONGALIGN_ENGINE={engine} needs packages that are not installed; install longalign[{engine}], "
        "or set LONGALIGN_ENGINE=local"
    )
