"""DeepSpeed's own configuration, rendered from the recipe's training section and the runtime."""

from __future__ import annotations

import logging
import shutil
from typing import Any

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import TrainingConfig
from longalign_core.errors import InputError

log = logging.getLogger(__name__)


def num_data_ranks(runtime: Runtime, packs_per_step: int, section: str = "batching") -> int:
    """Packs computed side by side: processes of all machines ÷ those that share a pack.

    There is one process a GPU, else `runtime.ranks` on each machine's CPU.

    Args:
        runtime: Has their number.
        packs_per_step: Slots of one optimizer step.
        section: The recipe's section that says so, for the error.

    Raises:
        InputError: Processes cannot be divided into groups, or the groups do not divide packs_per_step.
    """
    world, shared = runtime.nodes * ranks_per_node(runtime), runtime.sequence_parallel
    setting = "LONGALIGN_GPUS" if runtime.gpus else "LONGALIGN_RANKS"
    if runtime.nodes > 1:
        setting = f"LONGALIGN_NODES times {setting}"
    if world % shared:
        raise InputError(
            f"LONGALIGN_SEQUENCE_PARALLEL is {shared}, which does not divide {setting} {world}; "
            f"allowed here: {', '.join(map(str, _divisors(world)))}"
        )
    ranks = world // shared
    if packs_per_step % ranks:
        raise InputError(
            f"{setting} is {world}{f', {shared} to a pack' if shared > 1 else ''}, which does not divide "
            f"{section}.packs_per_step {packs_per_step}; "
            f"allowed here: {', '.join(str(shared * divisor) for divisor in _divisors(packs_per_step))}"
        )
    return ranks


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def ranks_per_node(runtime: Runtime) -> int:
    """Training processes on each machine."""
    return runtime.gpus or runtime.ranks


def check_memory_settings(runtime: Runtime) -> None:
    """Refuse offloading that DeepSpeed cannot do.

    Raises:
        InputError: ZeRO stage, device, folder or gradient checkpointing do not go together.
    """
    stage = runtime.zero_stage
    optimizer, parameters, folder = runtime.offload_optimizer, runtime.offload_parameters, runtime.offload_folder
    if parameters != "none" and stage != 3:
        raise InputError(
            f"LONGALIGN_OFFLOAD_PARAMETERS={parameters} needs LONGALIGN_ZERO_STAGE=3, found {stage}: "
            "below, every GPU holds all parameters"
        )
    if optimizer == "nvme" and stage != 3:
        raise InputError(
            f"LONGALIGN_OFFLOAD_OPTIMIZER=nvme needs LONGALIGN_ZERO_STAGE=3, found {stage}; raise it, or offload to cpu"
        )
    if optimizer == "cpu" and stage == 0:
        raise InputError("LONGALIGN_OFFLOAD_OPTIMIZER=cpu needs LONGALIGN_ZERO_STAGE from 1 to 3, found 0")
    if "nvme" in (optimizer, parameters):
        if folder is None:
            raise InputError("offloading to nvme needs LONGALIGN_OFFLOAD_FOLDER, a folder on an NVMe disk; none is set")
        if runtime.launcher == "local" and not folder.is_dir():
            raise InputError(f"LONGALIGN_OFFLOAD_FOLDER {folder} is no folder; make it on an NVMe disk of this machine")
    if runtime.gpus and optimizer != "none" and runtime.launcher == "local" and shutil.which("g++") is None:
        raise InputError(
            f"LONGALIGN_OFFLOAD_OPTIMIZER={optimizer} compiles DeepSpeed's CPU Adam at the first start, but g++ is "
            "not on the PATH; install it, or keep the optimizer's state on the GPUs"
        )
    if runtime.offload_activations and not runtime.gradient_checkpointing:
        raise InputError(
            "LONGALIGN_OFFLOAD_ACTIVATIONS moves what gradient checkpointing keeps; "
            "set LONGALIGN_GRADIENT_CHECKPOINTING=true too, or leave it out"
        )
    if not runtime.gpus and (optimizer != "none" or parameters != "none" or runtime.offload_activations):
        log.warning("nothing is offloaded: without LONGALIGN_GPUS everything is in CPU memory")


def deepspeed_config(config: TrainingConfig, runtime: Runtime, packs_per_step: int, ranks: int) -> dict[str, Any]:
    """The JSON that `deepspeed.initialize` gets.

    The learning rate in it is the peak; the worker sets each step's own. DeepSpeed is not told which
    processes share a pack: to it, each has a batch of its own, and it averages their gradients in one
    way under every ZeRO stage.

    Args:
        config: How to train.
        runtime: Where and how.
        packs_per_step: Slots of one optimizer step.
        ranks: Packs computed side by side.
    """
    optimizer = config.optimizer
    zero = _zero(runtime)
    parameters: dict[str, Any] = {
        "lr": optimizer.learning_rate,
        "betas": [optimizer.beta1, optimizer.beta2],
        "eps": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
    }
    if "offload_optimizer" not in zero:
        # DeepSpeed's fused optimizers are compiled at first use; torch's own needs no compiler.
        parameters["torch_adam"] = True
    rendered: dict[str, Any] = {
        "train_batch_size": packs_per_step * runtime.sequence_parallel,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": packs_per_step // ranks,
        "gradient_clipping": optimizer.clip_norm,
        "optimizer": {"type": "AdamW", "params": parameters},
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_optimization": zero,
        "steps_per_print": 1_000_000,
    }
    if "nvme" in (runtime.offload_optimizer, runtime.offload_parameters) and runtime.gpus:
        # Reads and writes of an NVMe disk in blocks of 1 MiB, eight under way: DeepSpeed's defaults leave most idle.
        rendered["aio"] = {"block_size": 1 << 20, "queue_depth": 8, "overlap_events": True}
    return rendered


def _zero(runtime: Runtime) -> dict[str, Any]:
    on_gpu = runtime.gpus > 0
    zero: dict[str, Any] = {"stage": runtime.zero_stage, "overlap_comm": on_gpu, "contiguous_gradients": True}
    if runtime.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    for name, device in (
        ("offload_optimizer", runtime.offload_optimizer),
        ("offload_param", runtime.offload_parameters),
    ):
        if device != "none" and on_gpu:
            zero[name] = {"device": device, "pin_memory": True}
            if device == "nvme":
                zero[name]["nvme_path"] = str(runtime.offload_folder)
    return zero
