"""What a model's `config.json` says of its work: weights a token meets, and attention of each layer.

Keys are read as transformers' config classes spell them, and as ChatGLM3's own files do. What cannot
be priced from a config (state-space or linear-attention layers) is refused; a measured profile serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longalign_core.errors import InputError

# One idea, several spellings: transformers' usual one first.
_HIDDEN = ("hidden_size", "n_embd")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer")
_HEADS = ("num_attention_heads", "n_head")
_INTERMEDIATE = ("intermediate_size", "ffn_hidden_size", "n_inner")
_VOCABULARY = ("vocab_size", "padded_vocab_size")
_HEAD_SIZE = ("head_dim", "kv_channels")
_KEY_HEADS = ("num_key_value_heads", "multi_query_group_num", "num_kv_heads")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")

# Feed-forwards of two matrices; all others have a third, the gate.
_UNGATED = frozenset(
    {
        "apertus", "arcee", "biogpt", "falcon", "gpt2", "gptj", "gpt_neox", "jais2", "nanochat", "nemotron",
        "persimmon", "phi", "starcoder2",
    }
)  # fmt: skip
# How keys begin that only layers have which are no attention over all tokens or over a window: state spaces,
# linear attention, convolutions, chunks. Configs as published name no `layer_types` beside them.
_OTHER_LAYERS = (
    "mamba_", "ssm_", "lru_", "linear_num_", "linear_conv_", "linear_attn_", "conv_L_cache", "attn_type_list",
    "attention_chunk_size",
)  # fmt: skip
# Configs from before `layer_types` existed: every n-th layer sees everything, the others a window.
_FULL_EVERY = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What of a model costs time.

    Attributes:
        weights: Matrix entries that a token is multiplied with, the head included.
        layers: For each layer the width of its queries, keys and values, halved over both products
            (heads x head size, where keys and values are alike), and the tokens a query sees back,
            itself included; None when it sees all.
    """

    weights: int
    layers: tuple[tuple[float, int | None], ...]


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape that the values of a `config.json` describe.

    Args:
        config: Those values. Of a model with vision or sound, the text model's are taken.

    Raises:
        InputError: A size is missing or is no positive number, or a kind of layer is unknown.
    """
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        config = inner
    needed = (_HIDDEN, _LAYERS, _HEADS, _VOCABULARY)
    if wrong := [names[0] for names in needed if _size(config, names) is None]:
        raise InputError(
            f"the model config has no usable {', '.join(wrong)}; give the config.json of a transformer language model"
        )
    if others := [key for key, value in config.items() if key.startswith(_OTHER_LAYERS) and value is not None]:
        raise InputError(
            f"the model config has {others[0]}, so layers whose cost a config does not tell; "
            "leave batching.model out and give a measured batching.cost_profile"
        )
    hidden, layers, heads, vocabulary = (_size(config, names) or 0 for names in needed)
    weights, width = _attention(config, hidden, heads)
    windows = _windows(config, layers)
    feed_forwards = sum(_feed_forward(config, hidden, layer) for layer in range(layers))
    return ModelShape(
        weights=layers * weights + feed_forwards + hidden * vocabulary,
        layers=tuple((width, window) for window in windows),
    )


def _attention(config: Mapping[str, Any], hidden: int, heads: int) -> tuple[int, float]:
    """Weights of a layer's four projections, and its width over both products."""
    if latent := _size(config, ("kv_lora_rank",)):
        return _latent_attention(config, hidden, heads, latent)
    head = _size(config, _HEAD_SIZE) or hidden // heads
    # ChatGLM3 names its groups even where they are not used.
    shared = config.get("multi_query_attention", True)
    key_heads = (_size(config, _KEY_HEADS) if shared else None) or heads
    if config.get("multi_query") and not config.get("new_decoder_architecture"):  # Falcon's first
        key_heads = 1
    return hidden * head * (2 * heads + 2 * key_heads), heads * head


def _latent_attention(config: Mapping[str, Any], hidden: int, heads: int, latent: int) -> tuple[int, float]:
    """DeepSeek's: keys and values are unpacked from a shorter vector."""
    names = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    if wrong := [name for name in names if _size(config, (name,)) is None]:
        raise InputError(f"the model config has kv_lora_rank but no usable {', '.join(wrong)}; give the whole config")
    plain, turned, value = (_size(config, (name,)) or 0 for name in names)
    query_width = heads * (plain + turned)
    query_latent = _size(config, ("q_lora_rank",))
    queries = query_latent * (hidden + query_width) if query_latent else hidden * query_width
    keys_values = hidden * (latent + turned) + latent * heads * (plain + value)
    return queries + keys_values + heads * value * hidden, (query_width + heads * value) / 2


def _feed_forward(config: Mapping[str, Any], hidden: int, layer: int) -> int:
    """Weights of a layer's feed-forward that one token meets; of experts, those it is sent to."""
    matrices = 2 if config.get("model_type") in _UNGATED else 3
    dense = _size(config, _INTERMEDIATE)
    if dense is None and config.get("model_type") not in ("gpt2", "gptj"):
        raise InputError("the model config has no usable intermediate_size; give the whole config")
    dense = dense or 4 * hidden
    experts = _size(config, _EXPERTS)
    if experts is None or not _has_experts(config, layer):
        return matrices * hidden * dense
    chosen = _size(config, ("num_experts_per_tok",))
    if chosen is None:
        raise InputError("the model config has experts but no usable num_experts_per_tok; give the whole config")
    width = _size(config, ("moe_intermediate_size",)) or dense
    shared = width * (_size(config, ("n_shared_experts",)) or 0)
    # Qwen2's shared expert has a gate of its own, one weight for each entry of the hidden vector.
    own_gate = 0
    if qwen_shared := _size(config, ("shared_expert_intermediate_size",)):
        shared, own_gate = qwen_shared, hidden
    return matrices * hidden * (chosen * width + shared) + hidden * experts + own_gate


def _has_experts(config: Mapping[str, Any], layer: int) -> bool:
    kinds = config.get("mlp_layer_types")
    if isinstance(kinds, Sequence) and layer < len(kinds):
        return bool(kinds[layer] == "sparse")
    if layer < (_size(config, ("first_k_dense_replace",)) or 0) or layer in (config.get("mlp_only_layers") or ()):
        return False
    return (layer + 1) % (_size(config, ("decoder_sparse_step",)) or 1) == 0


def _windows(config: Mapping[str, Any], layers: int) -> list[int | None]:
    """Tokens that each layer's queries see back; None for all."""
    window = _size(config, ("sliding_window",))
    kinds = config.get("layer_types")
    if isinstance(kinds, Sequence):
        return _windows_by_kind(kinds, window, layers)
    if window is None or config.get("use_sliding_window") is False:
        return [None] * layers
    # Qwen2: the layers before it see all.
    if isinstance(first := config.get("max_window_layers"), int):
        return [window if layer >= first else None for layer in range(layers)]
    every = _size(config, ("sliding_window_pattern", "_sliding_window_pattern"))
    every = every or _FULL_EVERY.get(str(config.get("model_type")))
    return [None if every and (layer + 1) % every == 0 else window for layer in range(layers)]


def _windows_by_kind(kinds: Sequence[Any], window: int | None, layers: int) -> list[int | None]:
    if len(kinds) < layers:
        raise InputError(f"the model config has {layers} layers but {len(kinds)} layer_types; give the whole config")
    windows: list[int | None] = []
    for layer, kind in enumerate(kinds[:layers]):
        if kind == "sliding_attention" and window is None:
            raise InputError(f"layer {layer} is a sliding_attention but the model config has no sliding_window")
        if kind not in ("full_attention", "sliding_attention"):
            raise InputError(
                f"layer {layer} is a {kind}, whose cost a config does not tell; "
                "leave batching.model out and give a measured batching.cost_profile"
            )
        windows.append(window if kind == "sliding_attention" else None)
    return windows


def _size(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of these keys that holds a whole number from 1 up."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
