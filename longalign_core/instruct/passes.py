"""Tasks worked on through batches: a pass over all of them asks for what is missing, the next uses what came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

from longalign_core.chat_client.batches import BatchClient
from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest
from longalign_core.errors import BudgetError, WaitingError
from longalign_core.instruct.at_once import work_at_once

Outcome = TypeVar("Outcome")
Ask = Callable[[ChatRequest], Awaitable[ChatReply]]


class NotAnsweredYet(Exception):  # noqa: N818 - no error: the reply is on its way
    """A request has no reply yet. Work lets it through, and is called again once there is one.

    Attributes:
        request: The one without a reply.
    """

    def __init__(self, request: ChatRequest) -> None:
        super().__init__(request)
        self.request = request


@dataclass(frozen=True, slots=True)
class BatchTask(Generic[Outcome]):
    """One piece of work.

    Attributes:
        id: Unique among all tasks of a run.
        work: Called at every pass until it has an outcome, so it must do the same each time: whatever it
            needs that differs between calls has to come from `ask`. A BudgetError of other calls that it makes
            leaves it without an outcome: it is called again once money may have come back.
    """

    id: str
    work: Callable[[Ask], Awaitable[Outcome]]


async def run_passes(
    tasks: Iterable[BatchTask[Outcome]],
    client: BatchClient,
    *,
    settled: Callable[[BatchTask[Outcome], Outcome | CallFailedError], Iterable[BatchTask[Outcome]]],
    wait_seconds: float,
    at_once: int = 1,
    around_pass: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
) -> None:
    """Work on tasks until every one has an outcome.

    Args:
        tasks: Iterated anew at every pass, so not an iterator; as many tasks as are worked on at once are held, and
            one more, and each may hold a document.
        client: Open.
        settled: Gets each task's outcome once, in order of coming, or the CallFailedError it ended with.
            It returns further tasks, such as those in place of a rejected one. They are worked on in the
            same pass and kept in memory until they have outcomes, so they should load documents when called.
        wait_seconds: So long a wait for batches may be, each time nothing else is left to do.
        at_once: Tasks worked on at the same time: more than one helps where work waits for calls of its own.
        around_pass: Entered before every pass and left behind it; what work needs that a BudgetError closes for good
            is opened here.

    Raises:
        WaitingError: Replies are still to come. Outcomes up to here were handed on; another run collects.
        BudgetError: What is left needs more than the budget allows; what was admitted was submitted and collected.
        EndpointError: From the client.
    """
    run = _Passes(client, settled, at_once)
    collected = await client.collect()
    while True:
        async with around_pass():
            await run.once(tasks)
        if not run.num_waiting:
            return
        collected = await client.wait(wait_seconds)
        if collected.num_stored or collected.failures:
            continue
        if collected.num_pending:
            raise WaitingError(run.waiting(collected.num_pending, collected.num_batches))
        # Calls of tasks that have ended may have had money set aside when others were refused.
        if not run.num_new and not run.num_settled:
            assert run.refused is not None, "a request is neither answered, nor under way, nor refused"
            raise run.refused


@dataclass(frozen=True, slots=True)
class _Worked(Generic[Outcome]):
    """How far one task's work came: to its outcome, to a request without a reply, or to the end of the budget."""

    result: Outcome | CallFailedError | NotAnsweredYet | BudgetError
    num_replies: int


class _Passes(Generic[Outcome]):
    """What is known between passes: ids, not documents.

    Attributes:
        num_waiting: Tasks that the last pass left without an outcome.
        num_new: Requests that it added.
        num_settled: Outcomes that it brought.
        refused: The first BudgetError in it.
    """

    def __init__(
        self,
        client: BatchClient,
        settled: Callable[[BatchTask[Outcome], Outcome | CallFailedError], Iterable[BatchTask[Outcome]]],
        at_once: int,
    ) -> None:
        self.num_waiting = 0
        self.num_new = 0
        self.num_settled = 0
        self.refused: BudgetError | None = None
        self._client = client
        self._settled = settled
        self._at_once = at_once
        self._done: set[str] = set()
        self._further: dict[str, BatchTask[Outcome]] = {}
        self._num_replies = 0
        self._adds_no_more = False

    async def once(self, tasks: Iterable[BatchTask[Outcome]]) -> None:
        """One pass over all tasks without an outcome."""
        self.num_waiting = self.num_new = self.num_settled = self._num_replies = 0
        self.refused, self._adds_no_more = None, False
        given = (task for task in tasks if task.id not in self._further and task.id not in self._done)
        await work_at_once(
            chain(given, list(self._further.values())), self._work_on, self._settle, at_once=self._at_once
        )
        await self._client.flush()

    def waiting(self, num_pending: int, num_batches: int) -> str:
        """One sentence on what is still to come."""
        total = self._num_replies + num_pending
        batches = "1 batch is" if num_batches == 1 else f"{num_batches} batches are"
        return (
            f"{self.num_waiting} tasks wait for model replies: {self._num_replies} of {total} are there and {batches} "
            "under way; run again to collect"
        )

    async def _work_on(self, task: BatchTask[Outcome]) -> _Worked[Outcome]:
        num_replies = 0

        async def ask(request: ChatRequest) -> ChatReply:
            nonlocal num_replies
            if (reply := self._client.answer(request)) is None:
                raise NotAnsweredYet(request)
            num_replies += 1
            return reply

        result: Outcome | CallFailedError | NotAnsweredYet | BudgetError
        try:
            result = await task.work(ask)
        except (NotAnsweredYet, CallFailedError, BudgetError) as error:
            # Without the frames of the work: they hold its documents, in a circle that is not freed at once.
            result = error.with_traceback(None)
        return _Worked(result, num_replies)

    async def _settle(self, task: BatchTask[Outcome], worked: _Worked[Outcome]) -> Iterable[BatchTask[Outcome]]:
        """Add the request that a task waits for, or hand its outcome on; gives the tasks to be worked on because of it.

        Requests are added here alone, so one after the other, and no task that ends with an error breaks off another
        one's submission.
        """
        result = worked.result
        if isinstance(result, NotAnsweredYet) and await self._is_decided(result.request):
            return [task]
        self._num_replies += worked.num_replies
        if isinstance(result, BudgetError):
            # The pass goes on: tasks whose replies are there shall have their outcomes.
            self.refused = self.refused or result
        if isinstance(result, NotAnsweredYet | BudgetError):
            self.num_waiting += 1
            return []
        self.num_settled += 1
        self._done.add(task.id)
        self._further.pop(task.id, None)
        further = {one.id: one for one in self._settled(task, result)}
        new = [one for one in further.values() if one.id not in self._done and one.id not in self._further]
        self._further.update({one.id: one for one in new})
        return new

    async def _is_decided(self, request: ChatRequest) -> bool:
        """Add a request, unless the budget is used up; whether it is answered, or given up, already."""
        if not self._adds_no_more:
            try:
                self.num_new += await self._client.add(request)
            except BudgetError as error:
                self.refused, self._adds_no_more = self.refused or error, True
        try:
            return self._client.answer(request) is not None
        except CallFailedError:
            return True
