"""Measured packs: what forward and backward passes took on the machines that will train.

A profile is a file of JSON lines, one measured pack each, for example

    {"lengths": [40210, 12080, 9100, 3900], "seconds": 21.37}

`lengths` are the tokens of the pack's sequences, each attending to itself alone, and `seconds` the
time of one forward and backward pass of that pack, as long as its slowest rank took, after a few
passes to warm up. Packs of one long sequence, of some of middle length and of many short ones tell
most; packs less than half full tell what a pass costs whatever is in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from longalign_core.errors import InputError

PROFILE_FILE = "cost_profile.jsonl"
# A quiet machine repeats a pass to a few per cent.
_GOOD_FIT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPack:
    """One pack, and the seconds its forward and backward pass took."""

    lengths: tuple[int, ...]
    seconds: float


def read_profile(path: Path) -> list[MeasuredPack]:
    """The packs of a profile.

    Args:
        path: The file, or a folder with `cost_profile.jsonl`.

    Raises:
        InputError: It cannot be read, or a line is no measured pack.
    """
    file = path / PROFILE_FILE if path.is_dir() else path
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InputError(
            f"the cost profile {file} cannot be read ({error.strerror}); give a file of measured packs"
        ) from error
    packs = [_read_pack(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not packs:
        raise InputError(f"the cost profile {file} is empty; measure some packs, or leave it out")
    return packs


def _read_pack(file: Path, number: int, line: bytes) -> MeasuredPack:
    try:
        row = orjson.loads(line)
        lengths, seconds = row["lengths"], row["seconds"]
        sound = bool(lengths) and all(type(length) is int and length > 0 for length in lengths)
        sound = sound and type(seconds) in (int, float) and math.isfinite(seconds) and seconds > 0
    except (orjson.JSONDecodeError, KeyError, TypeError):
        sound = False
    if not sound:
        raise InputError(
            f"line {number} of the cost profile {file} is no measured pack; "
            'write {"lengths": [tokens of each sequence], "seconds": above 0}'
        )
    return MeasuredPack(lengths=tuple(lengths), seconds=float(seconds))


def fit_seconds(features: NDArray[np.float64], seconds: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Coefficients from 0 up that explain the seconds best, by least squares.

    Args:
        features: A column for each coefficient, three at most, shape (N, F).
        seconds: Shape (N,).

    Returns:
        Coefficients, shape (F,), and the root mean square of what they miss by, as a share of the
        mean seconds.

    Raises:
        InputError: The measured packs are too few or too much alike to tell the features apart.
    """
    scales = features.max(axis=0)
    scaled = features / scales
    if np.linalg.matrix_rank(scaled, tol=1e-3 * np.sqrt(len(scaled))) < features.shape[1]:
        raise InputError(
            f"the {len(seconds)} packs of the cost profile are too much alike to tell what tokens and what attention "
            "cost; measure packs of one long sequence and packs of many short ones"
        )
    # The best fit without negative coefficients is the best of the plain fits of some of the
    # columns that has none; with three columns all can be tried.
    best, least = np.zeros(features.shape[1]), np.inf
    for size in range(1, features.shape[1] + 1):
        for columns in combinations(range(features.shape[1]), size):
            chosen = list(columns)
            found = np.linalg.lstsq(scaled[:, chosen], seconds, rcond=None)[0]
            missed = float(np.mean((scaled[:, chosen] @ found - seconds) ** 2))
            if (found >= 0).all() and missed < least:
                best, least = np.zeros(features.shape[1]), missed
                best[chosen] = found
    return best / scales, float(np.sqrt(least) / seconds.mean())


def doubts(packs: Sequence[MeasuredPack], misfit: float, capacity: int) -> list[str]:
    """Why costs fitted to measured packs may be far off; empty where nothing speaks against them.

    Args:
        packs: That were measured.
        misfit: Of the costs, see `CostModel`.
        capacity: Tokens of the packs that will be trained on.
    """
    found = []
    if misfit > _GOOD_FIT:
        found.append(
            f"measured packs lie {100 * misfit:.0f} % of their mean seconds from what their lengths explain; "
            "measure each pack several times on machines that do nothing else"
        )
    if (largest := max(sum(pack.lengths) for pack in packs)) < capacity / 2:
        found.append(
            f"the largest measured pack has {largest:,} tokens, packs here have {capacity:,}: times are extrapolated; "
            "measure full packs too"
        )
    return found
