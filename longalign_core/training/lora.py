"""LoRA: low-rank adapters trained beside a frozen base model, with the same packs and the same loss.

peft puts the adapters into the model in place, so that everything else sees the model it knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor, nn

from longalign_core.config.training import Lora
from longalign_core.errors import InputError
from longalign_core.training.model import PackedLossModel

ADAPTER_FOLDER = "adapter"
_BASE, _A, _B = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


def add_adapters(model: PackedLossModel, lora: Lora) -> None:
    """Put adapters into a model and freeze all else. What is random in them follows torch's seed.

    Raises:
        InputError: A named layer is not there, or cannot have an adapter that is merged afterwards.
    """
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) or "all-linear",
        bias="none",
    )
    try:
        inject_adapter_in_model(config, model.model)
    except ValueError as error:
        raise InputError(
            f"training.lora.target_modules {', '.join(lora.target_modules)}: {str(error).splitlines()[0]}; name linear "
            "layers of the base model (q_proj, for one), or leave it out for all of them"
        ) from error
    for name, module in model.model.named_modules():
        # Others are not merged as these are: GPT-2 keeps its layers turned, embeddings and output may be one tensor.
        if type(getattr(module, "base_layer", None)) not in (type(None), nn.Linear):
            raise InputError(
                f"training.lora would put an adapter on {name}, which is no plain linear layer between the embeddings "
                "and the output; name others in training.lora.target_modules, or choose another training.base_model"
            )


def merge_adapters(state: dict[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """Weights of the model that computes what base and adapters compute together, by the base model's names.

    Products are worked out in fp32 and rounded once to the base's precision.

    Args:
        state: Weights of a model with adapters.
        lora: What the adapters were made with.
    """
    merged = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        layer, is_base, part = name.partition(_BASE)
        if is_base and part == "weight":
            change = state[layer + _B].float() @ state[layer + _A].float()
            tensor = (tensor.float() + lora.alpha / lora.rank * change).to(tensor.dtype)
        merged[f"{layer}.{part}" if is_base else name] = tensor
    return merged


def write_adapter(state: dict[str, Tensor], lora: Lora, folder: Path) -> None:
    """Write the adapters alone, as `peft.PeftModel.from_pretrained` loads them onto the model they were trained on.

    That model goes unnamed: it may be an extended or a converted one, which no hub id leads to.

    Args:
        state: Weights of a model with adapters.
        lora: What they were made with.
        folder: Where to write.
    """
    folder.mkdir(parents=True)
    tensors = {
        f"base_model.model.{name.replace('.default.', '.')}": tensor.contiguous().cpu()
        for name, tensor in state.items()
        if ".lora_" in name
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config: Any = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted({name.removesuffix(_A).split(".")[-1] for name in state if name.endswith(_A)}),
        bias="none",
        inference_mode=True,
        task_type="CAUSAL_LM",
    )
    config.save_pretrained(folder)
