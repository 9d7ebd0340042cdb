"""A base model given a longer context in its config, its weights as they are. Needs no torch.

Either its RoPE base is raised, or its positions are scaled by YaRN (arXiv 2309.00071), which keeps fast
frequencies, slows down slow ones by the factor between the contexts, and sharpens attention a little.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson

from longalign_core.config.training import ExtensionConfig
from longalign_core.errors import InputError

_ADVICE = "choose a base model with one plain RoPE base, or set extension.enabled to false"


def write_extended_base(base_model: Path, folder: Path, extension: ExtensionConfig, *, trust_remote_code: bool) -> None:
    """Write a model folder that differs from the base model in its config alone; everything else is a link.

    Where config.json states no RoPE base, the architecture's own counts. A context that is longer
    already stays.

    Args:
        base_model: Folder of the base model.
        folder: Where to write; what is there is replaced.
        extension: How far and by which method.
        trust_remote_code: Run config code that comes with the weights.

    Raises:
        InputError: The model has no single RoPE base, or scales its positions in another way already, or YaRN
            has nothing to extend.
    """
    rope, window = _read_config(base_model, trust_remote_code)
    _check_plain(rope, base_model.name)
    values = orjson.loads((base_model / "config.json").read_bytes())
    stated = values.get("rope_parameters")
    if extension.method == "yarn":
        wanted = rope | _yarn(window, extension, base_model.name)
        # Both forms that came before are still read, and would stand beside this one.
        values = {name: value for name, value in values.items() if name not in ("rope_theta", "rope_scaling")}
        values["rope_parameters"] = wanted
    else:
        wanted = rope | {"rope_theta": float(rope["rope_theta"]) * extension.rope_factor}
        if isinstance(stated, dict):
            values["rope_parameters"] = stated | {"rope_theta": wanted["rope_theta"]}
        if "rope_theta" in values or not stated:  # the form that came before rope_parameters, still read
            values["rope_theta"] = wanted["rope_theta"]
    longer = values["max_position_embeddings"] = max(window, extension.context_tokens)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for entry in base_model.iterdir():
        if entry.name != "config.json" and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry.resolve())
    (folder / "config.json").write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
    found, found_window = _read_config(folder, trust_remote_code)
    if found_window != longer or any(found.get(name) != value for name, value in wanted.items()):
        raise InputError(
            f"the config of training.base_model {base_model.name} keeps its RoPE base or its context where they "
            "cannot be changed; choose another base model, or set extension.enabled to false"
        )


def _yarn(window: int, extension: ExtensionConfig, name: str) -> dict[str, Any]:
    if not 0 < window < extension.context_tokens:
        raise InputError(
            f"training.base_model {name} has a context of {window} tokens already; raise extension.context_tokens "
            f"({extension.context_tokens}) above it for YaRN, or set extension.enabled to false"
        )
    return {
        "rope_type": "yarn",
        "factor": extension.context_tokens / window,
        "original_max_position_embeddings": window,
    }


def _read_config(folder: Path, trust_remote_code: bool) -> tuple[dict[str, Any], int]:
    """RoPE parameters, and context in tokens, as transformers reads them."""
    from transformers import AutoConfig  # takes seconds, which planning a run must not

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the config of training.base_model {folder.name} cannot be read ({str(error).splitlines()[0]}); "
            "give a folder or hub id that transformers loads"
        ) from error
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {"rope_theta": getattr(config, "rope_theta", 0)}
    return rope, int(getattr(config, "max_position_embeddings", None) or 0)


def _check_plain(rope: dict[str, Any], name: str) -> None:
    base, kind = rope.get("rope_theta"), rope.get("rope_type", "default")
    if any(isinstance(value, dict) for value in rope.values()):
        raise InputError(f"training.base_model {name} keeps a RoPE base for each kind of its layers; {_ADVICE}")
    if kind != "default":
        raise InputError(f"training.base_model {name} scales its positions already ({kind}); {_ADVICE}")
    if not isinstance(base, int | float) or base <= 0:
        raise InputError(f"training.base_model {name} has no RoPE base to raise; {_ADVICE}")
