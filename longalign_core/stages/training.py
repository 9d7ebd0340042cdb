"""The stages `train` and `checkpoint`: a batch plan to models."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import CheckpointConfig, ExternalCheckpoint, TrainingConfig
from longalign_core.errors import MissingArtifactError
from longalign_core.stage import (
    Counts,
    Inputs,
    current_address,
    current_partial,
    current_publisher,
    record_setting,
    stage,
)
from longalign_core.stages.exported_model import set_chat_format
from longalign_core.stages.kept_models import KeptModels
from longalign_core.stages.licences import LICENCES, mark, read_licences
from longalign_core.stages.measurements import write_measurements, write_slot_costs
from longalign_core.stages.model_card import CARD, ModelCard
from longalign_core.stages.model_folders import model_path


@stage("checkpoint", version=2)
def checkpoint(config: CheckpointConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """One model of a training run. `train` publishes it on its way; it cannot be made from here.

    Raises:
        MissingArtifactError: Always: the training is in the store, this model of it is not.
    """
    raise MissingArtifactError(
        f"the checkpoint {config.step!r} of a finished training is not in the store; either it was removed, then "
        "delete the training's manifest and run again, or training.keep_steps and keep_every_… do not name this step"
    )


@stage("checkpoint", version=2)
def external_checkpoint(config: ExternalCheckpoint, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """A model that was trained elsewhere, as it is; links become files."""
    for file in sorted(Path(config.folder).iterdir()):
        shutil.copyfile(file, out_dir / file.name)
    return {"weight_bytes": sum(file.stat().st_size for file in out_dir.glob("*.safetensors"))}


@stage("train", version=2)
def train(config: TrainingConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Fine-tune the base model on a batch plan, publishing checkpoints as they come.

    Product: checkpoints.json (step and address of each), deepspeed.json, and what was measured:
    metrics.parquet, metrics.jsonl, report.html, cost_profile.jsonl, and TensorBoard's files if asked for.
    What a killed run left is used: its resume points, its models and its metrics.
    """
    from longalign_core.batch_plan import BatchPlan
    from longalign_core.training.copies import fetch_newer
    from longalign_core.training.kept_steps import kept_steps
    from longalign_core.training.preparation import carry_out, prepare_job

    (plan_folder,), (tokens_folder,) = inputs["plan"], inputs["tokens"]
    base_model = inputs["base"][0] if inputs.get("base") else model_path(config.base_model, runtime)
    plan = BatchPlan.open(plan_folder)
    steps, num_steps = kept_steps(config, plan), plan.meta.num_steps
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
        keep_steps=steps,
    )
    record_setting("deepspeed", job.deepspeed)
    publisher = current_publisher()
    card = ModelCard(config, plan, tokens_folder, base_model, current_address(), publisher, runtime)

    def finish(folder: Path, step: int) -> Counts:
        set_chat_format(folder, tokens_folder / "chat_template.jinja")
        licences = read_licences(tokens_folder)
        if licences:
            shutil.copyfile(tokens_folder / LICENCES, folder / LICENCES)
        (folder / CARD).write_text(card.text(folder, step), encoding="utf-8")
        return {"step": step, **mark(licences)}

    with KeptModels(job, checkpoint, steps=steps, num_steps=num_steps, finish=finish, publisher=publisher) as models:
        if models.missing:
            waiting = job.model_copy(update={"keep_steps": models.missing})
            carry_out(waiting, runtime, label="train", on_model=models.hand_in, watch=models.check, partial=partial)
    (out_dir / "checkpoints.json").write_bytes(orjson.dumps(models.listed, option=orjson.OPT_INDENT_2))
    return {**write_measurements(out_dir, plan_folder, "train"), "checkpoints": len(models.listed)}
