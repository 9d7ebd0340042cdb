"""Many waits at once, results in the order of the items."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, at_once: int, ahead: int
) -> AsyncGenerator[Result]:
    """Work on several items at once and yield their results in the items' order.

    Args:
        items: Read no further than `ahead` beyond the result that is waited for.
        work: Applied to each item. The first error, in order, ends everything.
        at_once: Items worked on at the same time, begun in order.
        ahead: Items and results held in memory.

    Yields:
        One result an item.
    """
    places = asyncio.Semaphore(at_once)

    async def one(item: Item) -> Result:
        async with places:
            return await work(item)

    begun: deque[asyncio.Task[Result]] = deque()
    try:
        for item in items:
            begun.append(asyncio.create_task(one(item)))
            if len(begun) >= ahead:
                yield await begun.popleft()
        while begun:
            yield await begun.popleft()
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)


def pulled(runner: asyncio.Runner, results: AsyncIterator[Result]) -> Iterator[Result]:
    """Results of an asynchronous stream one by one, for code that is not asynchronous.

    What runs in the background of the stream goes on only while the next result is waited for.
    """

    async def following() -> Result:
        return await anext(results)

    while True:
        try:
            result = runner.run(following())
        except StopAsyncIteration:
            return
        yield result
