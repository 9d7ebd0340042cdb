"""Where a recipe says the costs of sequences from: a model's config, and packs measured on the machines."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from longalign_core.config.batching import BatchingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.sources import local_path

if TYPE_CHECKING:
    from longalign_core.batching.cost import CostModel

log = logging.getLogger(__name__)

_CONFIG = "config.json"


def cost_model_for(config: BatchingConfig, runtime: Runtime) -> CostModel:
    """The costs that packs are compared by: the model's, in seconds where packs were measured.

    Of a hub model `config.json` alone is brought here.

    Raises:
        InputError: The model's config or the profile cannot be read or used.
    """
    from longalign_core.batching.cost import CostModel
    from longalign_core.batching.cost_profile import PROFILE_FILE, read_profile

    costs = CostModel()
    if config.model is not None:
        costs = cost_model_of(local_path(config.model, runtime, (_CONFIG,)))
    if config.cost_profile is not None:
        packs = read_profile(local_path(config.cost_profile, runtime, (PROFILE_FILE,)))
        costs = costs.calibrated(packs)
        log.info("costs fit %d measured packs to %.1f %% of their mean seconds", len(packs), 100 * costs.misfit)
    return costs


def cost_model_of(model: Path) -> CostModel:
    """The costs of a model folder, or of a `config.json` by itself.

    Raises:
        InputError: It cannot be read, or does not describe a model whose costs are known.
    """
    from longalign_core.batching.cost import CostModel

    return CostModel.from_model_config(read_model_config(model / _CONFIG if model.is_dir() else model))


def read_model_config(file: Path) -> dict[str, Any]:
    """The values of a `config.json`.

    Raises:
        InputError: It is not there or no JSON object.
    """
    try:
        values = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{file} cannot be read as JSON; give the folder or the config.json of a model") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} is no model config; give the folder or the config.json of a model")
    return values
