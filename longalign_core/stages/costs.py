"""Where a recipe says the costs of sequences from: a model's config, and packs measured on the machines."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from longalign_core.config.batching import BatchingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.sources import local_path

if TYPE_CHECKING:
    from longalign_core.batching.cost import CostModel

log = logging.getLogger(__name__)


def cost_model_for(config: BatchingConfig, runtime: Runtime) -> CostModel:
    """The costs that packs are compared by: the model's, in seconds where packs were measured.

    Of a hub model `config.json` alone is brought here.

    Raises:
        InputError: The model's config or the profile cannot be read or used.
    """
    from longalign_core.batching.cost import CostModel
    from longalign_core.batching.cost_profile import PROFILE_FILE, doubts, read_profile
    from longalign_core.batching.model_file import CONFIG_FILE, cost_model_of

    costs = CostModel()
    if config.model is not None:
        costs = cost_model_of(local_path(config.model, runtime, (CONFIG_FILE,)))
    if config.cost_profile is not None:
        packs = read_profile(local_path(config.cost_profile, runtime, (PROFILE_FILE,)))
        costs = costs.calibrated(packs)
        for doubt in doubts(packs, costs.misfit, config.capacity):
            log.warning("batching.cost_profile: %s", doubt)
        log.info("costs fit %d measured packs to %.1f %% of their mean seconds", len(packs), 100 * costs.misfit)
    return costs
