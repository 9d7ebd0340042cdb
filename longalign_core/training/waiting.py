"""How long ranks wait for one another, from the time each spends on its own packs.

Shapes: W ranks, M micro-steps of an optimizer step, P slots of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What ranks did between the moments they met.

    Attributes:
        ranks: Own work of each rank, in seconds or in predicted cost. Shape (W,).
        slowest: The largest between one meeting and the next, added up: what all took together.
    """

    ranks: tuple[float, ...]
    slowest: float


def step_work(own_WM: NDArray[np.float64], *, group: int, every_micro_step: bool) -> Work:
    """The work of one optimizer step.

    Args:
        own_WM: Own work of each rank in each micro-step.
        group: Consecutive ranks that share packs (sequence parallelism), and so meet inside each.
        every_micro_step: Whether all ranks meet in every micro-step, else once a step.
    """
    of_groups = own_WM.reshape(-1, group, own_WM.shape[1]).max(axis=1)
    slowest = of_groups.max(axis=0).sum() if every_micro_step else of_groups.sum(axis=1).max()
    return Work(ranks=tuple(own_WM.sum(axis=1).tolist()), slowest=float(slowest))


def predicted_work(costs_P: NDArray[np.float64], *, ranks: int, group: int, every_micro_step: bool) -> Work:
    """The work of a step whose slots cost so much.

    Args:
        costs_P: Cost of each slot; slot m x (W / group) + g is the g-th group's in micro-step m.
        ranks: Their number, W.
        group: As for `step_work`; its ranks share a slot's cost evenly.
        every_micro_step: As for `step_work`.
    """
    of_groups = costs_P.reshape(-1, ranks // group).T
    return step_work(np.repeat(of_groups / group, group, axis=0), group=group, every_micro_step=every_micro_step)


def slot_seconds(own_WM: NDArray[np.float64], group: int) -> tuple[float, ...]:
    """Seconds of each slot of a step, those of its slowest rank. Shape (P,)."""
    of_groups = own_WM.reshape(-1, group, own_WM.shape[1]).max(axis=1)
    return tuple(of_groups.T.ravel().tolist())


def costliest_seconds(whole_WM: NDArray[np.float64], costs_P: NDArray[np.float64], group: int) -> tuple[float, ...]:
    """The same where ranks run in lockstep: only a micro-step's costliest slot is known, the others are 0."""
    seconds_MG = np.array(slot_seconds(whole_WM, group)).reshape(whole_WM.shape[1], -1)
    costs_MG = costs_P.reshape(seconds_MG.shape)
    known_MG = costs_MG == costs_MG.max(axis=1, keepdims=True)
    return tuple(np.where(known_MG, seconds_MG, 0.0).ravel().tolist())


def idle_share(works: Iterable[Work]) -> float | None:
    """Share of rank time spent waiting, 1 − Σ own ÷ (W · Σ slowest), over one step or many; None of nothing."""
    own = longest = 0.0
    for work in works:
        own += sum(work.ranks)
        longest += len(work.ranks) * work.slowest
    return max(0.0, 1.0 - own / longest) if longest else None


def rank_idle_shares(works: Iterable[Work]) -> list[float]:
    """The same for each rank by itself. All works have the same number of ranks."""
    listed = list(works)
    longest = sum(work.slowest for work in listed)
    return [max(0.0, 1.0 - sum(own) / longest) for own in zip(*(work.ranks for work in listed), strict=True)]


def own_seconds(part_WM: NDArray[np.float64], whole_WM: NDArray[np.float64]) -> NDArray[np.float64]:
    """Own seconds of whole passes, where only a part of each is known to be free of waiting.

    The rank with the longest part waited for no one, so its whole pass is its own work; the others did
    as much less as their parts are shorter.

    Args:
        part_WM: Seconds of the part.
        whole_WM: Seconds of the whole, waiting included.
    """
    slowest = part_WM.argmax(axis=0)
    columns = np.arange(part_WM.shape[1])
    factors: NDArray[np.float64] = whole_WM[slowest, columns] / part_WM[slowest, columns]
    return part_WM * factors
