"""Tasks worked on through batches: a pass over all of them asks for what is missing, the next uses what came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from longalign_core.chat_client.batches import BatchClient
from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest
from longalign_core.errors import BudgetError, WaitingError

Outcome = TypeVar("Outcome")
Ask = Callable[[ChatRequest], Awaitable[ChatReply]]


class NotAnsweredYet(Exception):  # noqa: N818 - no error: the reply is on its way
    """A request has no reply yet. Work lets it through, and is called again once there is one."""


@dataclass(frozen=True, slots=True)
class BatchTask(Generic[Outcome]):
    """One piece of work.

    Attributes:
        id: Unique among all tasks of a run.
        work: Called at every pass until it has an outcome, so it must do the same each time: whatever it
            needs that differs between calls has to come from `ask`.
    """

    id: str
    work: Callable[[Ask], Awaitable[Outcome]]


async def run_passes(
    tasks: Iterable[BatchTask[Outcome]],
    client: BatchClient,
    *,
    settled: Callable[[BatchTask[Outcome], Outcome | CallFailedError], Iterable[BatchTask[Outcome]]],
    wait_seconds: float,
) -> None:
    """Work on tasks until every one has an outcome.

    Args:
        tasks: Iterated anew at every pass, so not an iterator; one task is held at a time, and may hold a document.
        client: Open.
        settled: Gets each task's outcome once, in order of coming, or the CallFailedError it ended with.
            It returns further tasks, such as those in place of a rejected one. They are worked on in the
            same pass and kept in memory until they have outcomes, so they should load documents when called.
        wait_seconds: So long a wait for batches may be, each time nothing else is left to do.

    Raises:
        WaitingError: Replies are still to come. Outcomes up to here were handed on; another run collects.
        BudgetError: What is left needs more than the budget allows; what was admitted was submitted and collected.
        EndpointError: From the client.
    """
    run = _Passes(client, settled)
    collected = await client.collect()
    while True:
        num_new = await run.once(tasks)
        if not run.num_waiting:
            return
        collected = await client.wait(wait_seconds)
        if collected.num_stored or collected.failures:
            continue
        if not collected.num_pending and not num_new:
            assert run.refused is not None, "a request is neither answered, nor under way, nor refused"
            raise run.refused
        if collected.num_pending:
            raise WaitingError(run.waiting(collected.num_pending, collected.num_batches))


class _Passes(Generic[Outcome]):
    """What is known between passes: ids, not documents."""

    def __init__(
        self,
        client: BatchClient,
        settled: Callable[[BatchTask[Outcome], Outcome | CallFailedError], Iterable[BatchTask[Outcome]]],
    ) -> None:
        self.num_waiting = 0
        self.refused: BudgetError | None = None
        self._client = client
        self._settled = settled
        self._done: set[str] = set()
        self._further: dict[str, BatchTask[Outcome]] = {}
        self._num_new = 0
        self._num_replies = 0

    async def once(self, tasks: Iterable[BatchTask[Outcome]]) -> int:
        """One pass over all tasks without an outcome; how many requests it added."""
        self.num_waiting = self._num_new = self._num_replies = 0
        self.refused = None
        for task in tasks:
            if task.id not in self._further:
                await self._work_on(task)
        seen: set[str] = set()
        while new := [task for task in self._further.values() if task.id not in seen]:
            for task in new:
                seen.add(task.id)
                await self._work_on(task)
        await self._client.flush()
        return self._num_new

    def waiting(self, num_pending: int, num_batches: int) -> str:
        """One sentence on what is still to come."""
        total = self._num_replies + num_pending
        batches = "1 batch is" if num_batches == 1 else f"{num_batches} batches are"
        return (
            f"{self.num_waiting} tasks wait for model replies: {self._num_replies} of {total} are there and {batches} "
            "under way; run again to collect"
        )

    async def _work_on(self, task: BatchTask[Outcome]) -> None:
        if task.id in self._done:
            return
        outcome: Outcome | CallFailedError
        try:
            outcome = await task.work(self._ask)
        except NotAnsweredYet:
            self.num_waiting += 1
            return
        except CallFailedError as error:
            outcome = error
        self._done.add(task.id)
        self._further.pop(task.id, None)
        for further in self._settled(task, outcome):
            if further.id not in self._done:
                self._further[further.id] = further

    async def _ask(self, request: ChatRequest) -> ChatReply:
        if (reply := self._client.answer(request)) is not None:
            self._num_replies += 1
            return reply
        if self.refused is None:
            try:
                self._num_new += await self._client.add(request)
            except BudgetError as error:
                # The pass goes on: tasks whose replies are there shall have their outcomes.
                self.refused = error
        if (reply := self._client.answer(request)) is not None:
            return reply
        raise NotAnsweredYet
