"""Working on many conversations at once, call by call: none waits for another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from longalign_core.chat_client.calls import CallFailedError
from longalign_core.instruct.at_once import work_at_once
from longalign_core.instruct.schedule import Place, Schedule
from longalign_core.records import Conversation, Reject

Outcome = Conversation | Reject | CallFailedError
"""A call given up for a passing reason is an outcome too: it stops neither the other places nor takes their turn."""


async def work_through(
    schedule: Schedule,
    work: Callable[[Place], Awaitable[Outcome]],
    keep: Callable[[Place, Outcome], None],
    *,
    at_once: int,
) -> None:
    """Work on the places of a schedule, and on those that take the place of rejected ones.

    Args:
        schedule: Where places come from.
        work: Writes one conversation. Its first error ends everything.
        keep: Takes each outcome, as they come.
        at_once: Places worked on at the same time, begun in order.
    """

    async def settle(place: Place, outcome: Outcome) -> list[Place]:
        keep(place, outcome)
        # What may succeed another time keeps its place.
        return schedule.settle(place, accepted=not isinstance(outcome, Reject))

    await work_at_once(schedule.begin(), work, settle, at_once=at_once)
