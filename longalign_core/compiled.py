"""Compilation of the loops over numbers that a stage spends its time in."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def compiled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Compile at the first call; the machine code is kept on disk for later processes."""
    return numba.njit(cache=True)(function)  # type: ignore[no-any-return]
