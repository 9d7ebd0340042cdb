"""Which documents of one place get which task type: counts by quota, the draw fixed by seed and id alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence


def assign_task_types(document_ids: Sequence[str], room: Mapping[str, int], seed: int) -> dict[str, str]:
    """Give each document a task type, whatever the order of the documents.

    Each document prefers the type that its hash names, in proportion to the types' places. Types
    that too many prefer keep those of highest priority, again by hash, and pass the others on. So a
    set that gains a few documents changes the type of only a few others, and most calls already
    answered still stand.

    Args:
        document_ids: Unique ids.
        room: Places of each type; they sum to the number of documents.
        seed: Another seed gives another draw.

    Returns:
        Type by document id, in order of priority.
    """
    names = list(room)
    assert sum(room.values()) == len(document_ids), "every document has one place"
    left = dict(room)
    by_priority = sorted(document_ids, key=lambda one: draw(seed, "priority", one))
    preferred = {one: _by_weight(draw(seed, "type", one), list(room.values())) for one in by_priority}
    assigned: dict[str, str] = {}
    for one in by_priority:
        name = names[preferred[one]]
        if left[name]:
            left[name] -= 1
            assigned[one] = name
    for one in by_priority:
        if one not in assigned:
            order = names[preferred[one] :] + names[: preferred[one]]
            name = next(name for name in order if left[name])
            left[name] -= 1
            assigned[one] = name
    return {one: assigned[one] for one in by_priority}


def split(total: int, weights: Mapping[str, float], owed: dict[str, float] | None = None) -> dict[str, int]:
    """Share out a number by weight; each share is the exact one rounded down or up.

    Args:
        total: What is shared out.
        weights: At least one, all positive.
        owed: What earlier calls rounded away from each name (negative: gave too much). Names that are
            owed most are rounded up first, so that sums over many calls come out right too. Updated.
    """
    owed = {} if owed is None else owed
    whole = sum(weights.values())
    exact = {name: round(total * weight / whole, 9) for name, weight in weights.items()}
    shares = {name: int(value) for name, value in exact.items()}
    for name, value in exact.items():
        owed[name] = owed.get(name, 0.0) + value - shares[name]
    # Only shares that are not whole may be rounded up: each stays within one of the exact one.
    open_ones = [name for name in weights if exact[name] > shares[name]] or list(weights)
    order = {name: index for index, name in enumerate(weights)}
    open_ones.sort(key=lambda name: (-round(owed[name], 9), order[name]))
    for name in open_ones[: total - sum(shares.values())]:
        shares[name] += 1
        owed[name] -= 1
    return shares


def draw(seed: int, subject: str, name: str) -> int:
    """A number from 0 to 2^64 - 1 that is fixed by its arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{subject}\0{name}".encode()).digest()[:8])


def _by_weight(number: int, weights: Sequence[int]) -> int:
    """The index that a number from `draw` falls on, in proportion to the weights."""
    place = number * sum(weights) >> 64
    for index, weight in enumerate(weights):
        place -= weight
        if place < 0:
            return index
    raise AssertionError("the number is below 2^64")
