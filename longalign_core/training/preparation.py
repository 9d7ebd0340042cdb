"""A training job, from a recipe's section and the runtime, checked before processes are started for nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson

from longalign_core.batch_plan import BatchPlan
from longalign_core.config.runtime import Runtime
from longalign_core.config.training import TrainingConfig
from longalign_core.partial_state import PartialState
from longalign_core.training.base_model import check_base_model, check_heads, check_positions, check_vocabulary
from longalign_core.training.copies import copying
from longalign_core.training.deepspeed_config import check_memory_settings, deepspeed_config, num_data_ranks
from longalign_core.training.going_on import go_on
from longalign_core.training.job import TrainingJob
from longalign_core.training.launch import run_job
from longalign_core.training.launchers import check_launcher
from longalign_core.training.trackers import check_trackers


def prepare_job(
    config: TrainingConfig,
    runtime: Runtime,
    *,
    name: str,
    plan: Path,
    slot_costs: Path | None,
    tokens: Path,
    base_model: Path,
    out_dir: Path,
    keep_steps: tuple[int, ...] = (),
) -> TrainingJob:
    """The job of a batch plan. DeepSpeed's part is written to deepspeed.json for people.

    Args:
        config: How to train.
        runtime: Where and how.
        name: What the run is called where its curves go.
        plan: Folder of the batch plan.
        slot_costs: Array file of the FLOPs of its slots; None where they are not known.
        tokens: Folder of the token store.
        base_model: Folder of the base model.
        out_dir: Where the job writes.
        keep_steps: Steps whose model is written, beside the plan's last.

    Raises:
        InputError: The base model cannot be trained, or not on these tokens, or the number of processes does not fit,
            or a tracker is not installed.
    """
    check_trackers(runtime.trackers)
    meta = BatchPlan.open(plan).meta
    check_base_model(base_model)
    check_vocabulary(base_model, tokens)
    check_heads(base_model, runtime.sequence_parallel)
    check_positions(base_model, meta.capacity)
    ranks = check_machines(runtime, meta.packs_per_step, "batching")
    rendered = deepspeed_config(config, runtime, meta.packs_per_step, ranks)
    (out_dir / "deepspeed.json").write_bytes(orjson.dumps(rendered, option=orjson.OPT_INDENT_2))
    return TrainingJob(
        plan=plan,
        tokens=tokens,
        base_model=base_model,
        out_dir=out_dir,
        config=config,
        keep_steps=tuple(sorted({*keep_steps, meta.num_steps})),
        checkpoint_interval=runtime.checkpoint_interval,
        checkpoint_minutes=runtime.checkpoint_minutes,
        num_resume_points=runtime.kept_resume_points,
        gradient_checkpointing=runtime.gradient_checkpointing,
        deepspeed=rendered,
        sequence_parallel=runtime.sequence_parallel,
        communication_timeout_seconds=runtime.communication_timeout_seconds,
        offload_activations=runtime.offload_activations and runtime.gpus > 0,
        name=name,
        trackers=runtime.trackers,
        slot_costs=slot_costs,
        peak_tflops=runtime.peak_tflops,
    )


def check_machines(runtime: Runtime, packs_per_step: int, section: str) -> int:
    """Refuse settings of where and how that training cannot run with.

    Args:
        runtime: Where and how.
        packs_per_step: Slots of one optimizer step.
        section: The recipe's section that says so, for the error.

    Returns:
        Data-parallel ranks.

    Raises:
        InputError: Launcher and machines, memory settings, or the number of ranks do not fit.
    """
    check_launcher(runtime)
    check_memory_settings(runtime)
    return num_data_ranks(runtime, packs_per_step, section)


def carry_out(
    job: TrainingJob,
    runtime: Runtime,
    *,
    label: str,
    on_model: Callable[[int], None],
    partial: PartialState | None = None,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Train as the job says, to its end, from where a killed run left it.

    Args:
        job: What to train.
        runtime: The one that the job was prepared with.
        label: What the progress is shown as.
        on_model: Called with the step of every model folder as soon as it is whole.
        partial: Where resume points are copied to, if the runtime says so; None where nowhere.
        watch: Called several times a second; what it raises ends the training.

    Raises:
        InputError: These ranks cannot go on from what others left.
        TrainingError: The processes ended without a model.
        LongAlignError: What a rank found wrong with its input.
    """
    meta = BatchPlan.open(job.plan).meta
    job = go_on(job, runtime)
    with copying(partial if runtime.copy_resume_points else None, job.out_dir) as on_point:
        run_job(
            job,
            runtime,
            num_steps=meta.num_steps,
            on_model=on_model,
            on_point=on_point,
            watch=watch,
            label=label,
        )
