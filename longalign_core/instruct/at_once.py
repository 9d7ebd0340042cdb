"""Work on several things at once, up to a bound, and on what follows from them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def work_at_once(
    items: Iterable[Item],
    work: Callable[[Item], Awaitable[Result]],
    settle: Callable[[Item, Result], Awaitable[Iterable[Item]]],
    *,
    at_once: int,
) -> None:
    """Work on items, and on the further ones that results bring.

    Args:
        items: Begun in order, and taken one by one as there is room for them.
        work: Works on one item. Its first error ends everything: the others are cancelled and awaited.
        settle: Gets each item with its result, never two at a time; those that finish at the same moment in the
            order in which they were begun. It returns further items, which are begun after all of `items`.
        at_once: Items worked on at the same time.
    """
    given, further = iter(items), deque[Item]()
    under_way: dict[asyncio.Future[Result], Item] = {}
    try:
        while True:
            for item in islice(chain(given, _drained(further)), at_once - len(under_way)):
                under_way[asyncio.ensure_future(work(item))] = item
            if not under_way:
                return
            finished, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for future in [one for one in under_way if one in finished]:
                item = under_way.pop(future)
                further.extend(await settle(item, future.result()))
    finally:
        for future in under_way:
            future.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def _drained(queue: deque[Item]) -> Iterator[Item]:
    while queue:
        yield queue.popleft()
