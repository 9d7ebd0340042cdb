"""DeepSpeed's own configuration, rendered from the recipe's training section and the runtime."""

from __future__ import annotations

from typing import Any

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import TrainingConfig
from longalign_core.errors import InputError


def num_ranks(runtime: Runtime, packs_per_step: int, section: str = "batching") -> int:
    """Data-parallel processes: one a GPU, else `runtime.ranks` on the CPU.

    Args:
        runtime: Has their number.
        packs_per_step: Slots of one optimizer step.
        section: The recipe's section that says so, for the error.

    Raises:
        InputError: Their number does not divide packs_per_step.
    """
    ranks = runtime.gpus or runtime.ranks
    if packs_per_step % ranks:
        divisors = [n for n in range(1, packs_per_step + 1) if packs_per_step % n == 0]
        setting = "LONGALIGN_GPUS" if runtime.gpus else "LONGALIGN_RANKS"
        raise InputError(
            f"{setting} is {ranks}, which does not divide {section}.packs_per_step {packs_per_step}; "
            f"allowed here: {', '.join(map(str, divisors))}"
        )
    return ranks


def deepspeed_config(config: TrainingConfig, runtime: Runtime, packs_per_step: int, ranks: int) -> dict[str, Any]:
    """The JSON that `deepspeed.initialize` gets.

    The learning rate in it is the peak; the worker sets each step's own.
    """
    optimizer = config.optimizer
    on_gpu = runtime.gpus > 0
    offload = runtime.offload and on_gpu and runtime.zero_stage >= 2
    parameters: dict[str, Any] = {
        "lr": optimizer.learning_rate,
        "betas": [optimizer.beta1, optimizer.beta2],
        "eps": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
    }
    if not offload:
        # DeepSpeed's fused optimizers are compiled at first use; torch's own needs no compiler.
        parameters["torch_adam"] = True
    zero: dict[str, Any] = {"stage": runtime.zero_stage, "overlap_comm": on_gpu, "contiguous_gradients": True}
    if runtime.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_batch_size": packs_per_step,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": packs_per_step // ranks,
        "gradient_clipping": optimizer.clip_norm,
        "optimizer": {"type": "AdamW", "params": parameters},
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_optimization": zero,
        "steps_per_print": 1_000_000,
    }
