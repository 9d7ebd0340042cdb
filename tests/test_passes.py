"""Passes over tasks: outcomes as replies come, further tasks, waiting told in one sentence."""

from __future__ import annotations

import pytest

from longalign_core.chat_client import CallFailedError
from longalign_core.chat_client.batches import BatchClient
from longalign_core.errors import BudgetError
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


def test_run_passes_holds_one_task_at_a_time(responses, tmp_path):
    tasks, outcomes = LazyTasks(50), []

    async def work(client: BatchClient) -> None:
        await run_passes(tasks, client, settled=lambda task, outcome: outcomes.append(outcome) or [], wait_seconds=1)

    with FakeBatchServer() as server:
        server.at_once = True
        with_batches(server.root, "openai", responses, tmp_path / "b", work)
    assert len(outcomes) == 50
    assert tasks.peak <= 2


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
