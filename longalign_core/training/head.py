"""What a model's own forward does to its logits after the output layer, which the loss head does not run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from longalign_core.errors import InputError

_LARGE = 100.0  # so large that a soft cap shows


def logit_scale(config: PreTrainedConfig) -> float:
    """Factor that the model's own forward puts on its logits: Cohere's `logit_scale`, Granite's `logits_scaling`."""
    return float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)


def check_head(model: PreTrainedModel, device: torch.device) -> None:
    """Run the model's own forward with known values for what its output layer gives, and compare its logits.

    Raises:
        InputError: They are not those values times `logit_scale`: a soft cap, say.
    """
    head = model.get_output_embeddings()
    values_V = torch.linspace(-_LARGE, _LARGE, head.out_features, device=device)

    def known(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return values_V.to(output.dtype).expand_as(output).clone()

    hook = head.register_forward_hook(known)
    try:
        with torch.no_grad():
            logits = model(torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False).logits
    finally:
        hook.remove()
    expected = (values_V * logit_scale(model.config)).expand_as(logits)
    if not torch.allclose(logits.float(), expected, rtol=1e-2, atol=1e-2):
        raise InputError(
            f"{type(model).__name__} changes its logits after its output layer (a soft cap, for one), "
            "which packed training does not compute; choose another training.base_model"
        )
