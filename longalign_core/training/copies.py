"""Copies of the newest resume point in the store, for machines whose disks vanish.

They are made by the launching process in the background: training never waits for one. A copy
holds the point, the metrics of every step before it, and which models were published.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from longalign_core.errors import LongAlignError, ManifestError, TrainingError
from longalign_core.partial_state import PartialState
from longalign_core.training.job import EVENTS_FILE, MODELS_FOLDER, PUBLISHED_FILE, RESUME_FOLDER
from longalign_core.training.resume import find_point, resume_tag
from longalign_core.training.trackers import SCALARS_FILE, TENSORBOARD_FOLDER

log = logging.getLogger(__name__)

_SNAPSHOTS = ".copying"
_FETCHED = ".fetching"


def fetch_newer(state: PartialState, out_dir: Path) -> None:
    """Bring the newest copy here if it is ahead of what is here. Nothing of it is unpickled before it was digested.

    Raises:
        TrainingError: No copy is whole, and there is no resume point here either.
        StoreError: The store cannot be read.
    """
    names = state.names()
    here = find_point(out_dir / RESUME_FOLDER) if names else None
    ahead = [name for name in names if here is None or name.rpartition("-")[0] > here.tag]
    fetched = out_dir / _FETCHED
    try:
        for name in reversed(ahead):
            shutil.rmtree(fetched, ignore_errors=True)
            try:
                state.fetch(name, fetched)
            except ManifestError as error:
                if here is None and name == ahead[0]:
                    raise TrainingError(str(error)) from error
                log.warning("not used: %s", error)
                continue
            tag = name.rpartition("-")[0]
            log.info("resume point %s comes from its copy in the store", tag)
            _move_in(fetched, out_dir, tag)
            return
    finally:
        shutil.rmtree(fetched, ignore_errors=True)


def _move_in(fetched: Path, out_dir: Path, tag: str) -> None:
    """Put a copy's files where they were; the point last, so that a fetch cut short is done again."""
    point = fetched / RESUME_FOLDER / tag
    for path in [path for path in fetched.rglob("*") if path.is_file() and not path.is_relative_to(point)]:
        target = out_dir / path.relative_to(fetched)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    target = out_dir / RESUME_FOLDER / tag
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    point.replace(target)


@contextmanager
def copying(state: PartialState | None, out_dir: Path) -> Iterator[Callable[[int], None]]:
    """Inside the block, the function that is given the step of every new point has it copied.

    A newer point takes the place of one that waits. When the block fails, the copy under way is finished.

    Args:
        state: Where to; None copies nothing.
        out_dir: The training's folder.
    """
    if state is None:
        yield lambda step: None
        return
    copies = _Copies(state, out_dir)
    try:
        yield copies.copy
    except Exception:
        copies.finish()
        raise
    finally:
        copies.give_up()


class _Copies:
    """One thread, and at most one snapshot that waits for it."""

    def __init__(self, state: PartialState, out_dir: Path) -> None:
        self._state, self._out_dir = state, out_dir
        self._snapshots = out_dir / _SNAPSHOTS
        shutil.rmtree(self._snapshots, ignore_errors=True)
        self._changed = threading.Condition()
        self._waiting: Path | None = None
        self._ending = self._given_up = False
        self._thread = threading.Thread(target=self._work, name="resume copies", daemon=True)
        self._thread.start()

    def copy(self, step: int) -> None:
        """Have the point after `step` copied, as it is now.

        While a model before it waits to be published, it is left out: nobody who goes on from the copy
        would make that model again.
        """
        if any((self._out_dir / MODELS_FOLDER).glob("*")):
            return
        snapshot = self._snapshots / f"{resume_tag(step)}-{secrets.token_hex(4)}"
        try:
            _take_snapshot(self._out_dir, resume_tag(step), snapshot)
        except FileNotFoundError:
            # Newer points have taken its place already; their turn comes.
            shutil.rmtree(snapshot, ignore_errors=True)
            return
        with self._changed:
            superseded, self._waiting = self._waiting, snapshot
            self._changed.notify()
        if superseded:
            shutil.rmtree(superseded)

    def finish(self) -> None:
        """Wait for what is under way and what waits."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def give_up(self) -> None:
        """End as soon as the file under way is copied."""
        self._given_up = True
        self.finish()
        shutil.rmtree(self._snapshots, ignore_errors=True)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._ending)
                snapshot, self._waiting = self._waiting, None
            if snapshot is None or self._given_up:
                return
            try:
                self._state.put(snapshot.name, snapshot, lambda: self._given_up)
            except (LongAlignError, OSError) as error:
                log.warning("resume point %s was not copied to the store: %s", snapshot.name, error)
            with suppress(OSError):
                shutil.rmtree(snapshot)


def _take_snapshot(out_dir: Path, tag: str, snapshot: Path) -> None:
    """The point by links, so that it may be pruned meanwhile; copies of what is appended to.

    Raises:
        FileNotFoundError: The point is gone.
    """
    point = Path(RESUME_FOLDER) / tag
    for file in [path for path in (out_dir / point).rglob("*") if path.is_file()] or [out_dir / point]:
        _place(file, snapshot / file.relative_to(out_dir), link=True)
    beside = [out_dir / name for name in (EVENTS_FILE, PUBLISHED_FILE, SCALARS_FILE)]
    for file in [*beside, *(out_dir / TENSORBOARD_FOLDER).rglob("*")]:
        if file.is_file():
            _place(file, snapshot / file.relative_to(out_dir), link=False)


def _place(file: Path, target: Path, *, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        try:
            os.link(file, target)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links
            link = False
    if not link:
        shutil.copyfile(file, target)
