"""Many conversations at once: none waits for another, and an error ends all."""

from __future__ import annotations

import asyncio

import pytest

from longalign_core.chat_client.calls import CallFailedError
from longalign_core.instruct.online import Outcome, work_through
from longalign_core.instruct.schedule import Place
from longalign_core.records import Conversation, Message, Reject
from tests.test_instruct_schedule import entries_of, schedule_of


def accepted(place: Place) -> Conversation:
    messages = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    return Conversation(id=place.entry.id, messages=messages, source="books", task_type=place.task_type, language="en")


def rejected(place: Place) -> Reject:
    return Reject(id=place.entry.id, source="books", stage="instruct", reason="refusal")


def test_work_through_one_that_never_ends_holds_up_nobody_else():
    """All others are settled while the first still waits; only then is it let go."""

    async def run() -> list[str]:
        entries = entries_of({("books", 8192): 30})
        settled: list[str] = []
        release = asyncio.Event()

        async def work(place: Place) -> Outcome:
            if place.entry.row == 0:
                await release.wait()
            await asyncio.sleep(0)
            return accepted(place)

        def keep(place: Place, outcome: Outcome) -> None:
            settled.append(place.entry.id)
            if len(settled) == 29:
                release.set()

        await asyncio.wait_for(work_through(schedule_of(entries, None), work, keep, at_once=2), timeout=20)
        return settled

    settled = asyncio.run(run())
    assert settled[-1] == "books:8192:0"
    assert len(set(settled)) == 30


def test_work_through_rejected_places_are_replaced_and_passing_failures_are_not():
    async def run() -> list[Outcome]:
        entries = entries_of({("books", 8192): 30})
        outcomes: list[Outcome] = []
        begun = 0

        async def work(place: Place) -> Outcome:
            nonlocal begun
            begun += 1
            if begun <= 4:
                return rejected(place)
            return CallFailedError("timed out", "", True) if begun <= 6 else accepted(place)

        await work_through(schedule_of(entries, 20), work, lambda place, outcome: outcomes.append(outcome), at_once=3)
        return outcomes

    outcomes = asyncio.run(run())
    kinds = [type(outcome) for outcome in outcomes]
    assert (kinds.count(Reject), kinds.count(CallFailedError), kinds.count(Conversation)) == (4, 2, 18)


def test_work_through_never_more_at_once_than_allowed():
    async def run() -> int:
        now = most = 0

        async def work(place: Place) -> Outcome:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return accepted(place)

        schedule = schedule_of(entries_of({("books", 8192): 50}), None)
        await work_through(schedule, work, lambda *_: None, at_once=7)
        return most

    assert asyncio.run(run()) == 7


def test_work_through_an_error_ends_all_and_leaves_no_task():
    async def run() -> int:
        async def work(place: Place) -> Outcome:
            if place.entry.row == 5:
                raise RuntimeError("disk full")
            await asyncio.sleep(3600)
            return accepted(place)

        schedule = schedule_of(entries_of({("books", 8192): 50}), None)
        with pytest.raises(RuntimeError, match="disk full"):
            await work_through(schedule, work, lambda *_: None, at_once=50)
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1
