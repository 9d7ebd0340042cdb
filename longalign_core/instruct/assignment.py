"""Which document gets which task type, and which of its questions is kept: fixed by seed and id alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from longalign_core.config.task_types import TaskName


def assign_task_types(document_ids: Sequence[str], task_types: Sequence[TaskName], seed: int) -> dict[str, TaskName]:
    """Give each document a task type, evenly and whatever the order of the documents.

    Each document prefers the type that its hash names. Types that too many prefer keep those of
    highest priority, again by hash, and pass the others on. So a set that gains a few documents
    changes the type of only a few others, and most calls already answered still stand.

    Args:
        document_ids: Unique ids.
        task_types: The types to share out.
        seed: Another seed gives another draw.

    Returns:
        Type by document id. Counts of the types differ by one at most.
    """
    by_priority = sorted(document_ids, key=lambda name: _draw(seed, "priority", name))
    preferred = {name: _draw(seed, "type", name) % len(task_types) for name in by_priority}
    room = _even_shares(list(preferred.values()), len(task_types))
    assigned: dict[str, TaskName] = {}
    passed_on = []
    for name in by_priority:
        choice = preferred[name]
        if room[choice]:
            room[choice] -= 1
            assigned[name] = task_types[choice]
        else:
            passed_on.append(name)
    for name in passed_on:
        order = [(preferred[name] + step) % len(task_types) for step in range(len(task_types))]
        choice = next(index for index in order if room[index])
        room[choice] -= 1
        assigned[name] = task_types[choice]
    return assigned


def draw_question(questions: Sequence[str], document_id: str, seed: int) -> str:
    """The question kept of those that the model asked about a document."""
    return questions[_draw(seed, "question", document_id) % len(questions)]


def _even_shares(preferred: Sequence[int], num_types: int) -> list[int]:
    """Places of each type; those left over by the division go where most wish to be."""
    demand = [preferred.count(index) for index in range(num_types)]
    shares = [len(preferred) // num_types] * num_types
    most_wanted = sorted(range(num_types), key=lambda index: (-demand[index], index))
    for index in most_wanted[: len(preferred) % num_types]:
        shares[index] += 1
    return shares


def _draw(seed: int, subject: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{subject}\0{name}".encode()).digest()[:8])
