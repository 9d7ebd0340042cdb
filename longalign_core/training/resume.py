"""Resume points: DeepSpeed's own checkpoint folders, each with a list of digests that is written last.

A point without its list, or whose files are not those of the list, is never taken.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

log = logging.getLogger(__name__)

POINT_LIST = "resume.json"
_POINTS = "step-*"
# Only partitioned optimizer states depend on the number of ranks; without ZeRO every rank has all of it.
_PARTITIONED = "optim_states.pt"


class Partition(BaseModel):
    """What DeepSpeed divides a training's state by. Ranks that share packs count each.

    Attributes:
        ranks: Processes.
        zero_stage: DeepSpeed ZeRO stage.
        on_nvme: Whether the optimizer's state is on NVMe disks, in files of DeepSpeed's own form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranks: int
    zero_stage: int
    on_nvme: bool = False

    def __str__(self) -> str:
        where = " with the optimizer on NVMe disks" if self.on_nvme else ""
        return f"{self.ranks} rank{'s' if self.ranks > 1 else ''} under ZeRO-{self.zero_stage}{where}"


class ResumePoint(BaseModel):
    """A state that training can go on from, as its list says it.

    Attributes:
        step: Optimizer steps that were done: the plan goes on at this step.
        partition: Of the ranks that wrote it.
        files: Sha256 of every file by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    partition: Partition
    files: dict[str, str]

    @property
    def tag(self) -> str:
        """DeepSpeed's name for it, and its folder's."""
        return resume_tag(self.step)

    def loads_under(self, partition: Partition) -> bool:
        """Whether ranks of a partition load it as it is."""
        if any(name.endswith(_PARTITIONED) for name in self.files):
            return self.partition == partition
        return self.partition.zero_stage == partition.zero_stage == 0

    def converts_to(self, partition: Partition) -> bool:
        """Whether DeepSpeed can make a universal checkpoint of it that ranks of a partition load."""
        stages = self.partition.zero_stage, partition.zero_stage
        divided_alike = stages == (3, 3) or all(stage in (1, 2) for stage in stages)
        return divided_alike and not (self.partition.on_nvme or partition.on_nvme)


def resume_tag(step: int) -> str:
    """Folder name of the point after `step` optimizer steps."""
    return f"step-{step:08d}"


def list_files(folder: Path) -> list[str]:
    """Names of a point's files, sorted, its list left out."""
    return sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(POINT_LIST)
    )


def digest_files(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Sha256 of each named file, 64 hex digits; empty for one that is gone. Several are read at once."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return dict(zip(names, threads.map(lambda name: _digest(folder / name), names), strict=True))


def _digest(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def complete_point(root: Path, step: int, partition: Partition, digests: dict[str, str], *, num_kept: int) -> None:
    """Make the point of `step` whole by writing its list, and remove all but the last whole ones up to it.

    What is left of a later step was damaged when this run started, or it would have gone on from there.

    Args:
        root: Folder of all points.
        step: Optimizer steps that were done.
        partition: Of the ranks that wrote it.
        digests: Of every file of the point.
        num_kept: Points to keep, this one among them.
    """
    folder = root / resume_tag(step)
    unfinished = folder / f"{POINT_LIST}.part"
    unfinished.write_text(
        ResumePoint(step=step, partition=partition, files=digests).model_dump_json(), encoding="utf-8"
    )
    unfinished.replace(folder / POINT_LIST)
    past = sorted(path.parent.name for path in root.glob(f"{_POINTS}/{POINT_LIST}") if path.parent.name <= folder.name)
    for path in root.iterdir():
        if path.is_dir() and path.name not in past[-num_kept:]:
            # The list goes first, so that a point half removed is never taken.
            (path / POINT_LIST).unlink(missing_ok=True)
            shutil.rmtree(path)


def find_point(root: Path) -> ResumePoint | None:
    """The latest whole point; None where there is none."""
    for path in list_points(root):
        try:
            point = ResumePoint.model_validate_json(path.read_bytes())
        except ValidationError:
            point = None
        if (
            point is not None
            and point.tag == path.parent.name
            and digest_files(path.parent, sorted(point.files)) == point.files
        ):
            return point
        log.warning("resume point %s is damaged: not used", path.parent.name)
    return None


def list_points(root: Path) -> list[Path]:
    """Lists of all points that were once whole, the latest first."""
    return sorted(root.glob(f"{_POINTS}/{POINT_LIST}"), reverse=True)
