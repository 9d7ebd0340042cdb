"""Resume points: DeepSpeed's own checkpoint folders, each with a list of digests that is written last.

A point without its list, or whose files are not those of the list, is never taken.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

log = logging.getLogger(__name__)

NUM_KEPT = 2
_LIST = "resume.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """A state that training can go on from.

    Attributes:
        step: Optimizer steps that were done: the plan goes on at this step.
        tag: DeepSpeed's name for it, and its folder's.
    """

    step: int
    tag: str


def resume_tag(step: int) -> str:
    """Folder name of the point after `step` optimizer steps."""
    return f"step-{step:08d}"


def list_files(folder: Path) -> list[str]:
    """Names of a point's files, sorted, its list left out."""
    return sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(_LIST)
    )


def digest_files(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Sha256 of each named file, 64 hex digits; empty for one that is gone."""
    digests = {}
    for name in names:
        file = folder / name
        if not file.is_file():
            digests[name] = ""
            continue
        with file.open("rb") as stream:
            digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def complete_point(root: Path, step: int, layout: str, digests: dict[str, str]) -> None:
    """Make the point of `step` whole by writing its list, and remove all but the last of its layout up to it.

    What is left of a later step was not taken when this run started: it is of another layout, or damaged.

    Args:
        root: Folder of all points.
        step: Optimizer steps that were done.
        layout: What a process must have alike to load it (ranks, ZeRO stage).
        digests: Of every file of the point.
    """
    folder = root / resume_tag(step)
    unfinished = folder / f"{_LIST}.part"
    unfinished.write_bytes(orjson.dumps({"step": step, "layout": layout, "files": digests}))
    unfinished.replace(folder / _LIST)
    points = {path.parent.name: orjson.loads(path.read_bytes()) for path in root.glob(f"*/{_LIST}")}
    past = sorted(tag for tag, point in points.items() if point["layout"] == layout and point["step"] <= step)
    for path in root.iterdir():
        if path.is_dir() and path.name not in past[-NUM_KEPT:]:
            # The list goes first, so that a point half removed is never taken.
            (path / _LIST).unlink(missing_ok=True)
            shutil.rmtree(path)


def find_point(root: Path, layout: str) -> ResumePoint | None:
    """The latest whole point of this layout; None starts from the base model."""
    for path in sorted(root.glob(f"*/{_LIST}"), reverse=True):
        point = orjson.loads(path.read_bytes())
        if point["layout"] != layout:
            log.warning(
                "resume point %s was made with %s, this run has %s: not used", path.parent.name, point["layout"], layout
            )
        elif digest_files(path.parent, sorted(point["files"])) != point["files"]:
            log.warning("resume point %s is damaged: not used", path.parent.name)
        else:
            return ResumePoint(step=point["step"], tag=path.parent.name)
    return None
