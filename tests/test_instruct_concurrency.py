"""Working on many items at once, results in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from longalign_core.instruct.concurrency import in_order, pulled


def results_of(items, work, *, at_once=4, ahead=8) -> list[int]:
    with asyncio.Runner() as runner:
        return list(pulled(runner, in_order(items, work, at_once=at_once, ahead=ahead)))


def test_in_order_work_that_ends_in_any_order_gives_results_in_order():
    draw = random.Random(0)

    async def work(item: int) -> int:
        for _ in range(draw.randrange(20)):
            await asyncio.sleep(0)
        return item * 2

    assert results_of(range(100), work) == [item * 2 for item in range(100)]


@pytest.mark.parametrize(("at_once", "ahead"), [(1, 1), (3, 12), (8, 2)])
def test_in_order_keeps_to_its_limits(at_once, ahead):
    under_way, most_under_way, read, most_held, given = 0, 0, 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal read, most_held
        for item in range(50):
            read += 1
            most_held = max(most_held, read - given)
            yield item

    async def work(item: int) -> int:
        nonlocal under_way, most_under_way
        under_way += 1
        most_under_way = max(most_under_way, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return item

    with asyncio.Runner() as runner:
        for _ in pulled(runner, in_order(items(), work, at_once=at_once, ahead=ahead)):
            given += 1
    assert most_under_way == min(at_once, ahead)
    assert most_held <= ahead + 1
    assert given == 50


def test_in_order_error_ends_the_rest():
    cancelled = []

    async def work(item: int) -> int:
        if item == 1:
            raise ValueError("item 1")
        try:
            if item > 1:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    with pytest.raises(ValueError, match="item 1"):
        results_of(range(4), work)
    assert sorted(cancelled) == [2, 3]
