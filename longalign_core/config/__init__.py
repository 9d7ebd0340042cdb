"""Recipe (what is made) and runtime (where and how)."""

from longalign_core.config.recipe import Recipe
from longalign_core.config.runtime import Runtime

__all__ = ["Recipe", "Runtime"]
