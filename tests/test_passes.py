"""Passes over tasks: outcomes as replies come, further tasks, waiting told in one sentence."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from longalign_core.chat_client import CallFailedError, ChatRequest
from longalign_core.chat_client.batch_packing import PartLimits
from longalign_core.chat_client.batches import BatchClient
from longalign_core.errors import BudgetError, EndpointError, WaitingError
from longalign_core.instruct.passes import Ask, BatchTask, run_passes
from tests.batch_setup import APIS, Purse, outcomes_of, two_calls, with_batches
from tests.chat_setup import request_of
from tests.fake_batch_server import FakeBatchServer, Refused, words_of


@pytest.mark.parametrize("api", APIS)
def test_run_passes_over_several_runs_gives_every_outcome_and_asks_nothing_twice(api, responses, tmp_path):
    with FakeBatchServer() as server:
        runs = []
        for _ in range(3):
            runs.append(outcomes_of(server.root, api, responses, tmp_path / "b", 6))
            server.end_all()
        assert set(server.times_sent.values()) == {1}
        assert len(server.times_sent) == 12
    assert [str(error) for _, error in runs[:2]] == [
        "6 tasks wait for model replies: 0 of 6 are there and 1 batch is under way; run again to collect",
        "6 tasks wait for model replies: 6 of 12 are there and 1 batch is under way; run again to collect",
    ]
    assert runs[2] == (
        {f"task {number}": f"reply to reply to question {number}, answer" for number in range(6)},
        None,
    )


def test_run_passes_within_the_wait_ends_in_one_run(responses, tmp_path):
    with FakeBatchServer() as server:
        server.at_once = True
        outcomes, error = outcomes_of(server.root, "openai", responses, tmp_path / "b", 4, wait_seconds=1)
    assert (len(outcomes), error) == (4, None)


def test_run_passes_rejected_tasks_are_replaced_until_enough_are_accepted(responses, tmp_path):
    accepted: list[str] = []
    spare = iter(range(4, 100))

    def settled(task: BatchTask[str], outcome: str | CallFailedError) -> list[BatchTask[str]]:
        if isinstance(outcome, CallFailedError):
            assert not outcome.passing
            return [two_calls(next(spare))]
        accepted.append(task.id)
        return []

    def answer(body: dict) -> str | Refused:
        if any(word in words_of(body) for word in ("question 1", "question 2", "question 4")):
            return Refused(400, {"error": {"message": "no", "code": "context_length_exceeded"}})
        return words_of(body)

    with FakeBatchServer() as server:
        server.at_once = True
        server.answer = answer

        async def work(client: BatchClient) -> None:
            await run_passes(map_of(4), client, settled=settled, wait_seconds=1)

        with_batches(server.root, "openai", responses, tmp_path / "b", work)
        assert set(server.times_sent.values()) == {1}
    assert sorted(accepted) == ["task 0", "task 3", "task 5", "task 6"]


def map_of(num_tasks: int) -> list[BatchTask[str]]:
    return [two_calls(number) for number in range(num_tasks)]


class LazyTasks:
    """Tasks that are made one at a time at every pass, with the most that lived at once."""

    def __init__(self, num_tasks: int) -> None:
        self.num_tasks = num_tasks
        self.num_alive = 0
        self.peak = 0

    def __iter__(self):
        for number in range(self.num_tasks):
            self.num_alive += 1
            self.peak = max(self.peak, self.num_alive)
            yield BatchTask(str(number), _Counted(self, number))


class _Counted:
    def __init__(self, owner: LazyTasks, number: int) -> None:
        self.owner = owner
        self.number = number

    async def __call__(self, ask: Ask) -> str:
        return (await ask(request_of(f"{self.number} " + "long " * 1000))).text

    def __del__(self) -> None:
        self.owner.num_alive -= 1


@pytest.mark.parametrize("at_once", [1, 7])
def test_run_passes_holds_no_more_tasks_than_it_works_on_and_one(responses, tmp_path, at_once):
    tasks, outcomes = LazyTasks(50), []

    async def work(client: BatchClient) -> None:
        settled = lambda task, outcome: outcomes.append(outcome) or []  # noqa: E731
        await run_passes(tasks, client, settled=settled, wait_seconds=1, at_once=at_once)

    with FakeBatchServer() as server:
        server.at_once = True
        with_batches(server.root, "openai", responses, tmp_path / "b", work)
    assert len(outcomes) == 50
    assert at_once <= tasks.peak <= at_once + 1


def test_run_passes_budget_reached_hands_on_what_came_and_then_says_so(responses, tmp_path):
    outcomes: list[str] = []

    async def work(client: BatchClient) -> None:
        await run_passes(
            map_of(3), client, settled=lambda task, outcome: outcomes.append(task.id) or [], wait_seconds=1
        )

    with FakeBatchServer() as server:
        server.at_once = True
        with pytest.raises(BudgetError):
            with_batches(server.root, "openai", responses, tmp_path / "b", work, spending=Purse(num_allowed=5))
        assert len(server.times_sent) == 5
    assert outcomes == ["task 0", "task 1"]


def test_run_passes_tasks_with_calls_of_their_own_do_not_wait_for_one_another(responses, tmp_path):
    """Their requests lie in the batch in the order of the tasks, and each is there once."""
    outcomes: list[str] = []

    async def work(client: BatchClient) -> None:
        meeting = asyncio.Barrier(4)

        def task(number: int) -> BatchTask[str]:
            async def work(ask: Ask) -> str:
                reply = await ask(request_of(f"question {number}"))
                async with asyncio.timeout(20):
                    await meeting.wait()
                return reply.text

            return BatchTask(str(number), work)

        settled = lambda task, outcome: outcomes.append(task.id) or []  # noqa: E731
        await run_passes([task(n) for n in range(8)], client, settled=settled, wait_seconds=1, at_once=4)

    with FakeBatchServer() as server:
        server.at_once = True
        with_batches(server.root, "openai", responses, tmp_path / "b", work)
        assert set(server.times_sent.values()) == {1}
        (batch,) = server.batches
        assert [words_of(body) for body in batch.rows.values()] == [f"question {number}" for number in range(8)]
    assert sorted(outcomes) == [str(number) for number in range(8)]


def test_run_passes_tasks_that_ask_the_same_at_once_submit_it_once(responses, tmp_path):
    outcomes: list[str] = []

    async def work(client: BatchClient) -> None:
        async def ask_alike(ask: Ask) -> str:
            return (await ask(request_of("the same"))).text

        tasks = [BatchTask(str(number), ask_alike) for number in range(5)]
        settled = lambda task, outcome: outcomes.append(outcome) or []  # noqa: E731
        await run_passes(tasks, client, settled=settled, wait_seconds=1, at_once=5)

    with FakeBatchServer() as server:
        server.at_once = True
        with_batches(server.root, "openai", responses, tmp_path / "b", work)
        assert list(server.times_sent.values()) == [1]
    assert outcomes == ["reply to the same"] * 5


def test_run_passes_first_error_ends_the_other_tasks_and_submits_nothing(responses, tmp_path):
    ended: list[int] = []

    def task(number: int) -> BatchTask[str]:
        async def work(ask: Ask) -> str:
            if number == 0:
                await ask(request_of("question"))
            if number == 3:
                raise EndpointError("the judge is gone")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append(number)
            return ""

        return BatchTask(str(number), work)

    async def work(client: BatchClient) -> None:
        tasks = [task(number) for number in range(4)]
        await run_passes(tasks, client, settled=lambda *_: [], wait_seconds=1, at_once=4)

    purse = Purse()
    with FakeBatchServer() as server:
        with pytest.raises(EndpointError, match="the judge is gone"):
            with_batches(server.root, "openai", responses, tmp_path / "b", work, spending=purse)
        assert server.batches == []
    assert sorted(ended) == [1, 2]
    assert purse.told == {"ticket 0": "abandoned, sent False"}


class Judge:
    """Calls of the work's own that the budget refuses, and after the first refusal does so until it is opened anew."""

    def __init__(self, num_refused: int) -> None:
        self.num_refused = num_refused
        self.num_opened = 0
        self.closed = True

    @asynccontextmanager
    async def opened(self):
        self.num_opened += 1
        self.closed = False
        yield
        self.closed = True

    async def ask(self) -> None:
        await asyncio.sleep(0)
        if self.num_refused and not self.closed:
            self.num_refused -= 1
            self.closed = True
        if self.closed:
            raise BudgetError("the judge's call does not fit")

    async def run(self, client: BatchClient, num_tasks: int, outcomes: list[str], **options: object) -> None:
        def task(number: int) -> BatchTask[str]:
            async def work(ask: Ask) -> str:
                reply = await ask(request_of(f"question {number}"))
                if number % 2 == 0:
                    await self.ask()
                    reply = await ask(request_of(f"{reply.text}, judged"))
                return reply.text

            return BatchTask(str(number), work)

        await run_passes(
            [task(number) for number in range(num_tasks)],
            client,
            settled=lambda task, outcome: outcomes.append(task.id) or [],
            around_pass=self.opened,
            **options,
        )


def run_judged(root: str, responses, folder, judge: Judge, outcomes: list[str], **options: object) -> None:
    with_batches(root, "openai", responses, folder, lambda client: judge.run(client, 4, outcomes, **options))


@pytest.mark.parametrize("at_once", [1, 4])
def test_run_passes_budget_refuses_the_works_own_calls_hands_on_what_came_and_then_says_so(
    responses, tmp_path, at_once
):
    outcomes: list[str] = []
    with FakeBatchServer() as server:
        server.at_once = True
        with pytest.raises(BudgetError, match="the judge's call"):
            run_judged(server.root, responses, tmp_path, Judge(1_000), outcomes, wait_seconds=1, at_once=at_once)
    assert sorted(outcomes) == ["1", "3"]


def test_run_passes_budget_refuses_the_works_own_calls_while_batches_are_under_way_waits(responses, tmp_path):
    """The batch of another run: what comes back of it may do."""
    outcomes: list[str] = []
    with FakeBatchServer() as server:
        with pytest.raises(WaitingError):
            run_judged(server.root, responses, tmp_path, Judge(0), outcomes, wait_seconds=0)
        server.end_all()
        with_batches(
            server.root, "openai", responses, tmp_path, lambda client: client.submit([request_of("another's")])
        )
        with pytest.raises(WaitingError, match="2 tasks wait"):
            run_judged(server.root, responses, tmp_path, Judge(1_000), outcomes, wait_seconds=0)
        assert sorted(outcomes) == ["1", "3"]


def test_run_passes_budget_refused_is_tried_anew_in_the_pass_after_replies_came(responses, tmp_path):
    """Task 1 asks in the first pass, whose reply gives money back while the judge is refused for the others."""
    outcomes: list[str] = []
    judge = Judge(1)
    with FakeBatchServer() as server:
        server.at_once = True

        async def ask_first(client: BatchClient) -> None:
            await client.submit([request_of(f"question {number}") for number in (0, 2)])
            await client.collect()

        with_batches(server.root, "openai", responses, tmp_path, ask_first)
        run_judged(server.root, responses, tmp_path, judge, outcomes, wait_seconds=0, at_once=4)
        assert set(server.times_sent.values()) == {1}
    assert sorted(outcomes) == ["0", "1", "2", "3"]
    assert (judge.num_refused, judge.num_opened) == (0, 3)


class FullPurse(Purse):
    """Has room for no request; says when it has refused one."""

    def __init__(self) -> None:
        super().__init__(num_allowed=0)
        self.refused = asyncio.Event()

    async def admit(self, request: ChatRequest) -> str:
        try:
            return await super().admit(request)
        except BudgetError:
            self.refused.set()
            raise


def test_run_passes_request_refused_while_the_works_own_calls_held_the_money_is_tried_again(responses, tmp_path):
    """As an online call does that is answered later in the pass: what it did not use comes back to the cap."""
    outcomes: list[str] = []
    purse = FullPurse()

    async def online(ask: Ask) -> str:
        await purse.refused.wait()
        purse.num_allowed = 1
        return "judged"

    async def batched(ask: Ask) -> str:
        return (await ask(request_of("question"))).text

    async def work(client: BatchClient) -> None:
        tasks = [BatchTask("online", online), BatchTask("batched", batched)]
        settled = lambda task, outcome: outcomes.append(task.id) or []  # noqa: E731
        await run_passes(tasks, client, settled=settled, wait_seconds=0, at_once=2)

    with FakeBatchServer() as server:
        server.at_once = True
        with_batches(server.root, "openai", responses, tmp_path, work, spending=purse)
    assert outcomes == ["online", "batched"]


def test_run_passes_request_that_no_batch_can_hold_ends_its_task_in_the_same_pass(responses, tmp_path):
    outcomes: list[object] = []

    async def work(client: BatchClient) -> None:
        async def too_long(ask: Ask) -> str:
            return (await ask(request_of("long " * 1_000))).text

        settled = lambda task, outcome: outcomes.append(outcome) or []  # noqa: E731
        await run_passes([BatchTask("one", too_long)], client, settled=settled, wait_seconds=0)

    with FakeBatchServer() as server:
        limits = PartLimits(max_bytes=2_000)
        with_batches(server.root, "openai", responses, tmp_path, work, part_limits=limits)
        assert server.batches == []
    (outcome,) = outcomes
    assert isinstance(outcome, CallFailedError)
    assert not outcome.passing
