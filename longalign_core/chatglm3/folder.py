"""A ChatGLM3 folder as it was published: telling one, and its config in the words of transformers' GLM class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from longalign_core.errors import InputError

# The one form of its class that GlmForCausalLM computes; every published ChatGLM3 has it.
_FORM = {
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "add_bias_linear": False,
    "multi_query_attention": True,
    "original_rope": True,
    "tie_word_embeddings": False,
    "hidden_dropout": 0.0,
    "quantization_bit": 0,
    "pre_seq_len": None,
}
_BASE = 10_000.0


def is_chatglm3(folder: Path) -> bool:
    """Whether it is a folder of ChatGLM's own classes: model, or tokenizer with the config beside it."""
    file = folder / "config.json"
    if not file.is_file():
        return False
    try:
        values = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError:
        return False
    return isinstance(values, dict) and values.get("model_type") == "chatglm"


def glm_config(folder: Path, tokens: dict[str, int]) -> dict[str, Any]:
    """What config.json of the converted model says.

    Args:
        folder: ChatGLM3 as published.
        tokens: Ids of its control tokens and of the end token.

    Raises:
        InputError: It is of another form than ChatGLM3, or quantised.
    """
    values = orjson.loads((folder / "config.json").read_bytes())
    for name, wanted in _FORM.items():
        found = values.get(name, wanted)
        if found != wanted:
            raise InputError(
                f"{folder.name} is a ChatGLM with {name} {found}, which GlmForCausalLM does not compute; "
                "give the folder of chatglm3-6b, chatglm3-6b-base or chatglm3-6b-32k as published"
            )
    if "chatglm2" in str(values.get("_name_or_path", "")).lower():  # its long form stretches positions instead
        raise InputError(f"{folder.name} is a ChatGLM2; only ChatGLM3 is converted")
    try:
        config: dict[str, Any] = {
            "architectures": ["GlmForCausalLM"],
            "model_type": "glm",
            "vocab_size": values["padded_vocab_size"],
            "hidden_size": values["hidden_size"],
            "intermediate_size": values["ffn_hidden_size"],
            "num_hidden_layers": values["num_layers"],
            "num_attention_heads": values["num_attention_heads"],
            "num_key_value_heads": values["multi_query_group_num"],
            "head_dim": values["kv_channels"],
            "max_position_embeddings": values["seq_length"],
            "rms_norm_eps": values["layernorm_epsilon"],
            "attention_bias": values.get("add_qkv_bias", False),
            "attention_dropout": values.get("attention_dropout", 0.0),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": _BASE * values.get("rope_ratio", 1),
                "partial_rotary_factor": 0.5,
            },
        }
    except KeyError as error:
        raise InputError(f"config.json of {folder.name} lacks {error}; give the folder as published") from None
    return config | {
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "dtype": values.get("torch_dtype", "float16"),
        "bos_token_id": None,
        "pad_token_id": 0,
        "eos_token_id": [tokens[name] for name in ("</s>", "<|user|>", "<|observation|>")],
    }
