"""What the launching process and the training processes tell each other: a job, and events.

The job is a JSON file. Events are JSON lines that are appended: `{"event": "step", ...}`,
`{"event": "model", "step": N}` and `{"event": "point", "step": N}`, from rank 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from longalign_core.config.training import TrainingConfig
from longalign_core.training.metrics import StepMetrics

EVENTS_FILE = ".events.jsonl"
RESUME_FOLDER = ".resume"
MODELS_FOLDER = ".models"
PUBLISHED_FILE = ".published.json"


class Resume(BaseModel):
    """The state that a start goes on from.

    Attributes:
        step: Optimizer steps that were done.
        tag: Name of its folder under the resume points.
        universal: Whether it is in DeepSpeed's universal form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    tag: str
    universal: bool = False


class TrainingJob(BaseModel):
    """Everything the training processes need to know; they see neither recipe nor runtime.

    Attributes:
        plan: Folder of the batch plan.
        tokens: Folder of the token store.
        base_model: Folder of the base model.
        out_dir: Where resume points, models and events go.
        config: The recipe's training section.
        keep_steps: Steps whose model is written, the last among them. Step N is after N optimizer steps.
        checkpoint_interval: Optimizer steps between resume points.
        checkpoint_minutes: Most minutes between them; None for no such limit.
        num_resume_points: So many are kept.
        resume: What to go on from; None starts from the base model.
        gradient_checkpointing: Recompute activations in the backward pass.
        deepspeed: DeepSpeed's own configuration.
        sequence_parallel: Ranks that share a pack.
        communication_timeout_seconds: So long ranks wait for one another.
        offload_activations: Keep what gradient checkpointing keeps in CPU memory.
        name: What the run is called where its curves go.
        trackers: Where they go beside the file of JSON lines.
        slot_costs: Array file of the FLOPs of every slot, shape (steps, packs_per_step); None where they
            are not known.
        peak_tflops: What one GPU can do, in 10^12 FLOPs a second; None for what is known of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Path
    tokens: Path
    base_model: Path
    out_dir: Path
    config: TrainingConfig
    keep_steps: tuple[int, ...]
    checkpoint_interval: int
    gradient_checkpointing: bool
    deepspeed: dict[str, Any]
    checkpoint_minutes: float | None = None
    num_resume_points: int = 2
    resume: Resume | None = None
    sequence_parallel: int = 1
    communication_timeout_seconds: float = 600
    offload_activations: bool = False
    name: str = "run"
    trackers: tuple[str, ...] = ()
    slot_costs: Path | None = None
    peak_tflops: float | None = None

    @property
    def zero_stage(self) -> int:
        """DeepSpeed ZeRO stage."""
        return int(self.deepspeed["zero_optimization"]["stage"])

    @property
    def on_nvme(self) -> bool:
        """Whether the optimizer's state is on NVMe disks."""
        offload = self.deepspeed["zero_optimization"].get("offload_optimizer", {})
        return bool(offload.get("device") == "nvme")

    def model_folder(self, step: int) -> Path:
        """Where the model after `step` optimizer steps is written."""
        return self.out_dir / MODELS_FOLDER / f"step-{step:06d}"


class EventWriter:
    """Appends events; a line that a killed process left unfinished is closed first."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("ab")
        if self._file.tell() and not file.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    def step(self, metrics: StepMetrics) -> None:
        """A step is done."""
        self._write({"event": "step", **asdict(metrics)})

    def model(self, step: int) -> None:
        """A model folder is whole."""
        self._write({"event": "model", "step": step})

    def point(self, step: int) -> None:
        """A resume point is whole."""
        self._write({"event": "point", "step": step})

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()


class EventReader:
    """Reads the events that were appended since it last looked; lines that were never finished are passed over."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Whole new events, in order."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._position)
            while (line := file.readline()).endswith(b"\n"):
                self._position = file.tell()
                try:
                    yield orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
