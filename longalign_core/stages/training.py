"""The stages `train` and `checkpoint`: a batch plan to models."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import orjson

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import CheckpointConfig, TrainingConfig
from longalign_core.errors import InputError, MissingArtifactError
from longalign_core.stage import (
    Counts,
    Inputs,
    current_address,
    current_partial,
    current_publisher,
    record_setting,
    stage,
)
from longalign_core.stages.measurements import write_measurements, write_slot_costs
from longalign_core.stages.model_folders import model_path
from longalign_core.training.job import PUBLISHED_FILE

log = logging.getLogger(__name__)


@stage("checkpoint", version=1)
def checkpoint(config: CheckpointConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """One model of a training run. `train` publishes it on its way; it cannot be made from here.

    Raises:
        MissingArtifactError: Always: the training is in the store, this model of it is not.
    """
    raise MissingArtifactError(
        f"the checkpoint {config.step!r} of a finished training is not in the store; either it was removed, then "
        "delete the training's manifest and run again, or training.keep_steps does not name this step"
    )


@stage("train", version=1)
def train(config: TrainingConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Fine-tune the base model on a batch plan, publishing checkpoints as they come.

    Product: checkpoints.json (step and address of each), deepspeed.json, and what was measured:
    metrics.parquet, metrics.jsonl, report.html, cost_profile.jsonl, and TensorBoard's files if asked for.
    What a killed run left is used: its resume points, its models and its metrics.
    """
    from longalign_core.batch_plan import BatchPlan
    from longalign_core.training.copies import fetch_newer
    from longalign_core.training.preparation import carry_out, prepare_job

    (plan_folder,), (tokens_folder,) = inputs["plan"], inputs["tokens"]
    base_model = inputs["base"][0] if inputs.get("base") else model_path(config.base_model, runtime)
    meta = BatchPlan.open(plan_folder).meta
    if beyond := [step for step in config.keep_steps if not 1 <= step <= meta.num_steps]:
        raise InputError(
            f"training.keep_steps names {beyond} but the batch plan has {meta.num_steps} steps; "
            f"name steps from 1 to {meta.num_steps}"
        )
    if (partial := current_partial()) is not None:
        fetch_newer(partial, out_dir)
    job = prepare_job(
        config,
        runtime,
        name=current_address(),
        plan=plan_folder,
        slot_costs=write_slot_costs(plan_folder, base_model, out_dir, frozen=config.lora is not None),
        tokens=tokens_folder,
        base_model=base_model,
        out_dir=out_dir,
    )
    record_setting("deepspeed", job.deepspeed)
    published = _Published(job, meta.num_steps)
    published.publish_waiting()
    if published.missing:
        waiting = job.model_copy(update={"keep_steps": published.missing})
        carry_out(waiting, runtime, label="train", on_model=published.publish, partial=partial)
    (out_dir / "checkpoints.json").write_bytes(orjson.dumps(published.listed, option=orjson.OPT_INDENT_2))
    return {**write_measurements(out_dir, plan_folder, "train"), "checkpoints": len(published.listed)}


class _Published:
    """Publishes model folders, remembers across kills which ones, and removes them afterwards."""

    def __init__(self, job: Any, num_steps: int) -> None:
        self._job = job
        self._num_steps = num_steps
        self._file = job.out_dir / PUBLISHED_FILE
        self.listed: list[dict[str, Any]] = orjson.loads(self._file.read_bytes()) if self._file.exists() else []

    @property
    def missing(self) -> tuple[int, ...]:
        """Steps whose model is still to be made."""
        there = {one["after"] for one in self.listed}
        return tuple(step for step in self._job.keep_steps if step not in there)

    def publish_waiting(self) -> None:
        """Publish the models that a killed run wrote and did not come to publish."""
        for step in self._job.keep_steps:
            if self._job.model_folder(step).is_dir():
                self.publish(step)

    def publish(self, step: int) -> None:
        """Publish the model after `step` optimizer steps under its step, and the last one as final."""
        folder = self._job.model_folder(step)
        # The template it was trained with, also where the base model's tokenizer has none.
        shutil.copyfile(self._job.tokens / "chat_template.jinja", folder / "chat_template.jinja")
        names: list[CheckpointConfig] = []
        if step in self._job.config.keep_steps:
            names.append(CheckpointConfig(step=step))
        if step == self._num_steps:
            names.append(CheckpointConfig(step="final"))
        new = []
        for name in names:
            label = str(name.step)
            artifact = current_publisher().publish(checkpoint, name, label, folder, {"step": step})
            log.info("published the model after step %d: %s", step, artifact.address)
            new.append({"step": name.step, "address": artifact.address, "after": step})
        self.listed = [one for one in self.listed if one["after"] != step] + new
        unfinished = self._file.with_suffix(".part")
        unfinished.write_bytes(orjson.dumps(self.listed))
        unfinished.replace(self._file)
        shutil.rmtree(folder, ignore_errors=True)
