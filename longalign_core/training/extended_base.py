"""A base model given a larger RoPE base and a longer context, its weights as they are. Needs no torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson

from longalign_core.errors import InputError


def write_extended_base(
    base_model: Path, folder: Path, *, rope_factor: float, context_tokens: int, trust_remote_code: bool
) -> None:
    """Write a model folder that differs from the base model in its config alone; everything else is a link.

    Where config.json states no RoPE base, the architecture's own counts. A context that is longer
    already stays.

    Args:
        base_model: Folder of the base model.
        folder: Where to write; what is there is replaced.
        rope_factor: Factor on the RoPE base.
        context_tokens: Least context of the new config, in tokens.
        trust_remote_code: Run config code that comes with the weights.

    Raises:
        InputError: The model has no single RoPE base, or scales its positions in another way already.
    """
    base, window = _rope_base_and_window(base_model, trust_remote_code)
    values = orjson.loads((base_model / "config.json").read_bytes())
    if isinstance(stated := values.get("rope_parameters"), dict):
        values["rope_parameters"] = {**stated, "rope_theta": base * rope_factor}
    if "rope_theta" in values or not stated:  # the form that came before rope_parameters, still read
        values["rope_theta"] = base * rope_factor
    longer = max(window, context_tokens)
    values["max_position_embeddings"] = longer
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for entry in base_model.iterdir():
        if entry.name != "config.json" and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry.resolve())
    (folder / "config.json").write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
    if _rope_base_and_window(folder, trust_remote_code) != (base * rope_factor, longer):
        raise InputError(
            f"the config of training.base_model {base_model.name} keeps its RoPE base or its context where they "
            "cannot be changed; choose another base model, or set extension.enabled to false"
        )


def _rope_base_and_window(folder: Path, trust_remote_code: bool) -> tuple[float, int]:
    """RoPE base, and context in tokens, as transformers reads them."""
    from transformers import AutoConfig  # takes seconds, which planning a run must not

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the config of training.base_model {folder.name} cannot be read ({str(error).splitlines()[0]}); "
            "give a folder or hub id that transformers loads"
        ) from error
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {"rope_theta": getattr(config, "rope_theta", 0)}
    advice = "choose a base model with one plain RoPE base, or set extension.enabled to false"
    base, kind = rope.get("rope_theta"), rope.get("rope_type", "default")
    if kind != "default":
        raise InputError(f"training.base_model {folder.name} scales its positions already ({kind}); {advice}")
    if not isinstance(base, int | float) or base <= 0:
        raise InputError(f"training.base_model {folder.name} has no RoPE base to raise; {advice}")
    return float(base), int(getattr(config, "max_position_embeddings", None) or 0)
