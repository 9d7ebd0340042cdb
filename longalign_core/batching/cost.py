"""What a sequence costs to train on: linear in its tokens, quadratic in its attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longalign_core.errors import InputError

# A backward pass costs twice the forward pass.
_PASSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """FLOPs of one forward and backward pass, without recomputation. The default is Llama-2-7B's.

    Attributes:
        linear: FLOPs a token, in everything but attention between tokens.
        quadratic: FLOPs a squared token of a sequence, causal attention.
    """

    linear: float = 42e9
    quadratic: float = 786_432.0

    @classmethod
    def from_model_config(cls, config: Mapping[str, Any]) -> CostModel:
        """The costs of a Llama-like model.

        Args:
            config: The values of its `config.json`.

        Raises:
            InputError: A size is missing or is no positive number.
        """
        sizes = {name: config.get(name) for name in _SIZES}
        if wrong := [name for name, size in sizes.items() if not isinstance(size, int) or size < 1]:
            raise InputError(
                f"the model config has no usable {', '.join(wrong)}; give the config.json of a Llama-like model"
            )
        hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
        head = config.get("head_dim") or hidden // heads
        key_heads = config.get("num_key_value_heads") or heads
        attention = hidden * head * (2 * heads + 2 * key_heads)
        feed_forward = 3 * hidden * config["intermediate_size"]
        weights = layers * (attention + feed_forward) + hidden * config["vocab_size"]
        # Two FLOPs a weight and token. In attention two products of n x n x head FLOPs twice over a
        # head, of which a causal mask leaves half.
        return cls(linear=_PASSES * 2.0 * weights, quadratic=_PASSES * 2.0 * layers * heads * head)

    def costs(self, lengths: NDArray[np.integer]) -> NDArray[np.float64]:
        """FLOPs per sequence, shape (S,)."""
        tokens = np.asarray(lengths, dtype=np.float64)
        return self.linear * tokens + self.quadratic * tokens**2


_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
