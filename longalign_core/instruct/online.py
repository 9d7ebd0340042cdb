"""Working on many conversations at once, call by call: none waits for another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from longalign_core.chat_client.calls import CallFailedError
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
    waiting = deque(schedule.begin())
    under_way: dict[asyncio.Future[Outcome], Place] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < at_once:
                place = waiting.popleft()
                under_way[asyncio.ensure_future(work(place))] = place
            finished, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                place = under_way.pop(task)
                outcome = task.result()
                keep(place, outcome)
                # What may succeed another time keeps its place.
                waiting.extend(schedule.settle(place, accepted=not isinstance(outcome, Reject)))
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
