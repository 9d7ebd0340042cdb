"""Where the shards of one stage are worked on: in this process, in local processes, or on a cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
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
            result = function(job)
            look()
            yield result


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
            try:
                futures = [pool.executor.submit(function, job) for job in jobs]
                try:
                    for future in futures:
                        _wait_for(future, look)
                        yield future.result()
                finally:
                    _give_up(futures, pool)
            except BrokenProcessPool:
                raise WorkerError(
                    f"a process of {label} ended without a result, as one does that runs out of memory; "
                    "lower LONGALIGN_WORKERS, then run again: what is done is kept"
                ) from None


def _give_up(futures: Sequence[Future[Any]], pool: _Pool) -> None:
    """See that nobody works on a job any more: its folder may be taken away as soon as we return."""
    under_way = [future for future in futures if not future.cancel() and not future.done()]
    with _lock:
        is_alone = pool.num_users == 1
        if under_way and is_alone:
            pool.is_retired = True  # it ends at once when we leave it, so nobody may come in
    if not is_alone:
        wait(under_way)


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


class _Pool:
    """Processes that end with this one, however it ends, and at once when they are told to.

    They hold the reading end of a pipe whose only writing end is here: when it closes, by our hand
    or by our death, they exit. A pool's processes would else wait for work for ever.
    """

    def __init__(self, num_workers: int) -> None:
        # Not fork: this process has threads.
        context = multiprocessing.get_context("spawn")
        life, self._life = context.Pipe(duplex=False)
        self.executor = ProcessPoolExecutor(num_workers, context, initializer=_end_with, initargs=(life,))
        self.num_users = 0
        self.is_retired = False

    def end(self) -> None:
        """Stop the processes, what they work on included: it is gone on with another time."""
        self._life.close()
        self.executor.shutdown(wait=True, cancel_futures=True)


_lock = threading.Lock()
_pools: list[_Pool] = []
"""At most one, but for those that are retired and that some stage has not left yet."""


@contextmanager
def _shared_pool(num_workers: int) -> Iterator[_Pool]:
    with _lock:
        pool = next((one for one in _pools if not one.is_retired), None)
        if pool is None:
            pool = _Pool(num_workers)
            _pools.append(pool)
        pool.num_users += 1
    try:
        yield pool
    except (BrokenProcessPool, WorkerError):
        # Whoever comes now gets a new one; those that are in it learn of it by themselves.
        pool.is_retired = True
        raise
    finally:
        with _lock:
            pool.num_users -= 1
            is_last = pool.num_users == 0
            if is_last:
                _pools.remove(pool)
        if is_last:
            pool.end()


def _end_with(life: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the whole group: no traceback from each process

    def end() -> None:
        wait_for_any([life])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
