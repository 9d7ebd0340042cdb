"""Checks of a base model's folder that need no torch: before processes are started for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from longalign_core.errors import InputError
from longalign_core.token_store import TokenStore

_POSITIONS = ("max_position_embeddings", "n_positions", "seq_length")


def check_base_model(folder: Path) -> None:
    """Refuse a folder that cannot be trained.

    Raises:
        InputError: Config, safetensors weights or tokenizer are missing.
    """
    missing = [
        name
        for name, pattern in (
            ("config.json", "config.json"),
            ("weights (*.safetensors)", "*.safetensors"),
            ("a tokenizer (tokenizer*)", "tokenizer*"),
        )
        if not any(folder.glob(pattern))
    ]
    if missing:
        raise InputError(
            f"training.base_model {folder} lacks {', '.join(missing)}; "
            "give a folder as transformers' save_pretrained writes it, model and tokenizer"
        )


def check_vocabulary(folder: Path, tokens: Path) -> None:
    """Refuse token ids that the base model does not know. A config without vocab_size leaves that to the ranks.

    Args:
        folder: The base model.
        tokens: The token store it is to be trained on.

    Raises:
        InputError: A token id is outside the vocabulary.
    """
    vocabulary = orjson.loads((folder / "config.json").read_bytes()).get("vocab_size")
    largest = TokenStore.open(tokens).largest_token_id
    if vocabulary and largest >= vocabulary:
        raise InputError(
            f"the token store has token id {largest} but training.base_model knows ids up to {vocabulary - 1} "
            "(vocab_size of its config.json); let encoding.tokenizer be the base model's own, with no token added"
        )


def check_heads(folder: Path, sequence_parallel: int) -> None:
    """Refuse attention heads that ranks cannot share evenly.

    Args:
        folder: The base model.
        sequence_parallel: Ranks that share a pack.

    Raises:
        InputError: The number of query heads is no multiple of theirs.
    """
    values = orjson.loads((folder / "config.json").read_bytes())
    heads = values.get("num_attention_heads", values.get("n_head"))
    if sequence_parallel > 1 and isinstance(heads, int) and heads % sequence_parallel:
        allowed = [number for number in range(1, heads + 1) if heads % number == 0]
        raise InputError(
            f"LONGALIGN_SEQUENCE_PARALLEL is {sequence_parallel} but training.base_model has {heads} attention heads, "
            f"which that many ranks cannot share evenly; allowed here: {', '.join(map(str, allowed))}"
        )


def check_positions(folder: Path, capacity: int) -> None:
    """Refuse packs longer than the base model's context: what lies beyond it was never trained.

    A config that does not state the context is let through.

    Args:
        folder: The base model.
        capacity: Tokens of a pack.

    Raises:
        InputError: A pack is longer.
    """
    window = num_positions(orjson.loads((folder / "config.json").read_bytes()))
    if window is not None and capacity > window:
        raise InputError(
            f"batching.capacity is {capacity} but training.base_model has {window} positions "
            "(max_position_embeddings of its config.json); extend its context first (extension.enabled with "
            f"extension.context_tokens={capacity}), or lower batching.capacity and encoding.max_tokens to {window}"
        )


def num_positions(config: dict[str, Any]) -> int | None:
    """Tokens of context that a model's config.json states, positions that YaRN and the like add among them."""
    stated = config.get("text_config") or config
    window: int | None = next((stated[name] for name in _POSITIONS if isinstance(stated.get(name), int)), None)
    scaling = stated.get("rope_parameters") or stated.get("rope_scaling") or {}
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    if window is None or not isinstance(factor, int | float) or not isinstance(original, int):
        return window
    return max(window, int(factor * original))
