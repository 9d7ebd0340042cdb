"""Costs from a model on this machine: its folder, or its `config.json` by itself."""

from __future__ import annotations

from pathlib import Path

import orjson

from longalign_core.batching.cost import CostModel
from longalign_core.errors import InputError

CONFIG_FILE = "config.json"


def cost_model_of(model: Path) -> CostModel:
    """The costs of a model folder, or of a `config.json` by itself.

    Raises:
        InputError: It cannot be read, or does not describe a model whose costs are known.
    """
    file = model / CONFIG_FILE if model.is_dir() else model
    try:
        values = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{file} cannot be read as JSON; give the folder or the config.json of a model") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} is no model config; give the folder or the config.json of a model")
    return CostModel.from_model_config(values)
