"""What tests of batches share: a client from end to end, and a process that works through passes and may be killed."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from longalign_core.chat_client import CallFailedError, ChatReply, ChatRequest, Endpoint, ResponseStore
from longalign_core.chat_client.batch_packing import PartLimits
from longalign_core.chat_client.batches import NO_LIMITS, BatchClient, Collected
from longalign_core.chat_client.calls import Api, Spending
from longalign_core.errors import BudgetError, WaitingError
from longalign_core.instruct.passes import Ask, BatchTask, run_passes
from tests.chat_setup import FastClock, request_of
from tests.fake_batch_server import FakeBatchServer

Result = TypeVar("Result")
APIS: tuple[Api, ...] = ("openai", "openai-responses", "anthropic")


def endpoint_of(root: str, api: Api) -> Endpoint:
    return Endpoint(root if api == "anthropic" else f"{root}/v1", "generator", api)


def with_batches(
    root: str,
    api: Api,
    responses: ResponseStore,
    folder: Path,
    work: Callable[[BatchClient], Awaitable[Result]],
    *,
    spending: Spending | None = None,
    clock: FastClock | None = None,
    part_limits: PartLimits = NO_LIMITS,
) -> Result:
    async def run() -> Result:
        client = BatchClient(
            endpoint_of(root, api),
            responses,
            folder,
            timeout_seconds=20.0,
            spending=spending,
            clock=clock or FastClock(),
            part_limits=part_limits,
        )
        async with client:
            return await work(client)

    return asyncio.run(run())


def two_calls(number: int) -> BatchTask[str]:
    """A task of a question and an answer that needs it."""

    async def work(ask: Ask) -> str:
        question = await ask(request_of(f"question {number}"))
        answer = await ask(request_of(f"{question.text}, answer"))
        return answer.text

    return BatchTask(f"task {number}", work)


def outcomes_of(
    root: str, api: Api, responses: ResponseStore, folder: Path, num_tasks: int, wait_seconds: float = 0
) -> tuple[dict[str, str], WaitingError | None]:
    """Outcomes of tasks of two calls, and the error that the run ended with."""
    outcomes: dict[str, str] = {}

    def settled(task: BatchTask[str], outcome: str | CallFailedError) -> list[BatchTask[str]]:
        assert task.id not in outcomes, "settled twice"
        outcomes[task.id] = str(outcome)
        return []

    async def work(client: BatchClient) -> None:
        tasks = [two_calls(number) for number in range(num_tasks)]
        await run_passes(tasks, client, settled=settled, wait_seconds=wait_seconds)

    try:
        with_batches(root, api, responses, folder, work)
    except WaitingError as error:
        return outcomes, error
    return outcomes, None


def work_in_process(root: str, api: Api, folder: Path, num_tasks: int, wait_for_parent: Callable[[], object]) -> None:
    """Work through tasks, for a process of its own."""
    wait_for_parent()
    with ResponseStore(folder / "replies.sqlite") as responses:
        outcomes_of(root, api, responses, folder / "batches", num_tasks, wait_seconds=60)
    sys.exit(0)


def submit_in_process(root: str, api: Api, folder: Path, num_requests: int, num_characters: int) -> None:
    """Submit long requests, for a process of its own; its peak memory in MB goes to a file."""
    long = (request_of(f"{number} " + "x" * num_characters) for number in range(num_requests))
    with ResponseStore(folder / "replies.sqlite") as responses:
        with_batches(root, api, responses, folder / "batches", lambda client: client.submit(long))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (folder / "peak").write_text(str(peak))


def requests(num_requests: int, **changes: object) -> list[ChatRequest]:
    return [request_of(f"words {number}", **changes) for number in range(num_requests)]


class Purse:
    """A budget of so many requests."""

    def __init__(self, num_allowed: int = 1000) -> None:
        self.num_allowed = num_allowed
        self.told: dict[str, str] = {}

    async def admit(self, request: ChatRequest) -> str:
        if len(self.told) >= self.num_allowed:
            raise BudgetError("the cap is reached")
        ticket = f"ticket {len(self.told)}"
        self.told[ticket] = "open"
        return ticket

    def settle(self, ticket: str, reply: ChatReply) -> None:
        self.told[ticket] = f"settled at {reply.reply_tokens}, batch {reply.batch}"

    def abandon(self, ticket: str, *, sent: bool) -> None:
        self.told[ticket] = f"abandoned, sent {sent}"


def submit(
    server: FakeBatchServer,
    api: Api,
    responses: ResponseStore,
    folder: Path,
    asked: list[ChatRequest],
    **options: object,
) -> int:
    return with_batches(server.root, api, responses, folder, lambda client: client.submit(asked), **options)


def collect(server: FakeBatchServer, api: Api, responses: ResponseStore, folder: Path, **options: object) -> Collected:
    return with_batches(server.root, api, responses, folder, lambda client: client.collect(), **options)


def part_files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".part" in path.name]


def reply_of_words(text: str) -> ChatReply:
    return ChatReply(text=text, finish_reason="stop", model="m", prompt_tokens=1, reply_tokens=1, stored=False)
