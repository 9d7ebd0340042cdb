"""Where the shards of one stage are worked on: in this process, in local processes, or on a cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError, WorkerError

Job = TypeVar("Job")
Result = TypeVar("Result")
SECONDS_BETWEEN_LOOKS = 1.0


class Engine(Protocol):
    """Applies a function of a module to jobs that can be pickled.

    Workers of a cluster must see the scratch folder under the same path.
    """

    def run(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], *, label: str, look: Callable[[], None]
    ) -> Iterator[Result]:
        """Results in the order of jobs. `look` is called about once a second, for progress."""


class InProcess:
    """One job after another, here: for work so small that a process would start longer than it lasts."""

    def run(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], *, label: str, look: Callable[[], None]
    ) -> Iterator[Result]:
        """See `Engine`."""
        for job in jobs:
            yield function(job)
            look()


class LocalProcesses:
    """A pool of processes of this machine, shared by the stages that run at the same time."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers

    def run(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], *, label: str, look: Callable[[], None]
    ) -> Iterator[Result]:
        """See `Engine`.

        Raises:
            WorkerError: A process ended without a result, as one that ran out of memory does.
        """
        with _shared_pool(self._num_workers) as pool:
            futures = [pool.submit(function, job) for job in jobs]
            try:
                for future in futures:
                    _wait_for(future, look)
                    yield future.result()
            except BrokenProcessPool:
                raise WorkerError(
                    f"a process of {label} ended without a result, as one does that runs out of memory; "
                    "lower LONGALIGN_WORKERS, then run again: what is done is kept"
                ) from None
            finally:
                for future in futures:
                    future.cancel()


def _wait_for(future: Future[Any], look: Callable[[], None]) -> None:
    while not wait([future], timeout=SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED).done:
        look()
    look()


_engine: ContextVar[Engine] = ContextVar("engine")


@contextmanager
def using(engine: Engine) -> Iterator[None]:
    """Make `engine` the one that `current_engine` gives inside the block."""
    token = _engine.set(engine)
    try:
        yield
    finally:
        _engine.reset(token)


def current_engine(runtime: Runtime) -> Engine:
    """The engine of the stage that is running.

    Raises:
        InputError: The runtime names an engine that only a flow run has.
    """
    engine = _engine.get(None)
    if engine is not None:
        return engine
    if runtime.engine != "local":
        raise InputError(
            f"LONGALIGN_ENGINE={runtime.engine} works through Prefect's task runners: set PREFECT_API_URL, "
            "or set LONGALIGN_ENGINE=local"
        )
    return LocalProcesses(runtime.workers)


class _SharedPool:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: ProcessPoolExecutor | None = None
        self.num_users = 0


_SHARED = _SharedPool()


@contextmanager
def _shared_pool(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    with _SHARED.lock:
        if _SHARED.pool is None:
            # Not fork: this process has threads.
            context = multiprocessing.get_context("spawn")
            _SHARED.pool = ProcessPoolExecutor(num_workers, context, initializer=_end_with_parent)
        _SHARED.num_users += 1
        pool = _SHARED.pool
    try:
        yield pool
    finally:
        with _SHARED.lock:
            _SHARED.num_users -= 1
            last = _SHARED.num_users == 0
            if last or getattr(pool, "_broken", False):
                _SHARED.pool = None
        if last:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """A pool's processes do not notice that their parent was killed: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for child processes"

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
