"""The base model as training sees it: packs in, one weighted loss out.

Shapes: T tokens of a pack, E hidden size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from longalign_core.errors import InputError
from longalign_core.training.activations import activation_storage
from longalign_core.training.attention import PACKED_ATTENTION, register_packed_attention
from longalign_core.training.head import logit_scale
from longalign_core.training.loss import LossHead

Precision = Literal["bf16", "fp32"]
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class PackedLossModel(nn.Module):  # type: ignore[misc]
    """What DeepSpeed gets: its forward is the weighted loss of one pack."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise InputError(
                f"{type(model).__name__} has no linear output layer, which packed training needs; "
                "choose another training.base_model"
            )
        self._logit_scale = logit_scale(model.config)
        if head.bias is not None and self._logit_scale != 1:
            raise InputError(
                f"{type(model).__name__} scales its logits and has a bias in its output layer, which packed training "
                "does not compute together; choose another training.base_model"
            )
        model.set_output_embeddings(LossHead.of(head))
        self.model = model
        self.offload_activations = False

    @property
    def vocabulary(self) -> int:
        """Token ids the model knows."""
        return int(self.model.get_input_embeddings().num_embeddings)

    def forward(
        self, token_ids_T: Tensor, positions_T: Tensor, labels_T: Tensor, weights_T: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum over the pack's tokens of weight times cross entropy, and each token's own, see the loss head."""
        losses: tuple[Tensor, Tensor] = self.model.get_output_embeddings()(
            self.hidden(token_ids_T, positions_T), labels_T, weights_T
        )
        return losses

    def hidden(self, token_ids_T: Tensor, positions_T: Tensor) -> Tensor:
        """Last hidden states of a pack, times the factor that the model puts on its logits. Shape (T, E)."""
        # No cache and no mask: with either, transformers would stop treating the row as packed.
        with activation_storage(self.offload_activations):
            output = self.model.base_model(
                input_ids=token_ids_T[None], position_ids=positions_T[None], attention_mask=None, use_cache=False
            )
        states: Tensor = output.last_hidden_state[0]
        return states if self._logit_scale == 1 else states * self._logit_scale


def load_model(
    folder: Path,
    *,
    precision: Precision,
    trust_remote_code: bool,
    gradient_checkpointing: bool,
    offload_activations: bool = False,
) -> PackedLossModel:
    """Load a base model for training on packs.

    Raises:
        InputError: The folder holds no causal language model that packed training can use.
    """
    register_packed_attention()
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
        _refuse_what_packs_hide(config)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=_DTYPES[precision],
            attn_implementation=PACKED_ATTENTION,
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        if PACKED_ATTENTION in str(error):
            raise InputError(
                f"the classes of training.base_model ({config.model_type}) do not call transformers' attention "
                "interface, which packed training needs; choose another training.base_model"
            ) from error
        raise InputError(
            f"training.base_model cannot be loaded ({error}); give a folder with a causal language model in "
            "safetensors, and set training.trust_remote_code if you trust the code that comes with it"
        ) from error
    if missing := sorted(report["missing_keys"]):  # transformers would train random numbers in their place
        raise InputError(
            f"the weights of training.base_model lack {', '.join(missing[:3])} ({len(missing)} in all); "
            "give a folder with all of its files"
        )
    if gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    packed = PackedLossModel(model)
    packed.offload_activations = offload_activations
    return packed


def _refuse_what_packs_hide(config: PreTrainedConfig) -> None:
    """Refuse what would be wrong in a pack of long sequences though the start-up check, on short ones, passes."""
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if others:
        raise InputError(
            f"training.base_model has layers of {', '.join(sorted(others))}, which packed training does not compute; "
            "choose a model of full or sliding attention"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {one.get("rope_type") for one in (rope, *rope.values()) if isinstance(one, dict)}
    if by_longest := kinds & {"dynamic", "longrope"}:
        raise InputError(
            f"training.base_model scales its positions by the longest sequence it sees ({by_longest.pop()}), so the "
            "sequences of a pack would change each other; choose another training.base_model"
        )
