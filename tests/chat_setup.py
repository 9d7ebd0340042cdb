"""What tests of the chat client share: a clock that runs at once, and one request from end to end."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from longalign_core.chat_client import ChatClient, ChatReply, ChatRequest, Endpoint, ResponseStore
from longalign_core.records import Message
from tests.fake_chat_server import Fault

Result = TypeVar("Result")


class FastClock:
    """Time that passes only by waiting, and then at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def wall_time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def request_of(words: str, **changes: object) -> ChatRequest:
    values = {"model": "m", "temperature": 1.0, "top_p": 1.0, "max_tokens": 16, "purpose": "test", **changes}
    return ChatRequest(messages=(Message(role="user", content=words),), **values)


def with_client(
    url: str,
    responses: ResponseStore,
    work: Callable[[ChatClient], Awaitable[Result]],
    *,
    clock: FastClock | None = None,
    max_in_flight: int = 4,
    timeout_seconds: float = 20.0,
    max_retries: int = 3,
) -> Result:
    async def run() -> Result:
        client = ChatClient(
            Endpoint(url, "generator"),
            responses,
            max_in_flight=max_in_flight,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            clock=clock or FastClock(),
        )
        async with client:
            return await work(client)

    return asyncio.run(run())


def ask(url: str, responses: ResponseStore, words: str = "hello", **options: object) -> ChatReply:
    return with_client(url, responses, lambda client: client.ask(request_of(words)), **options)


def in_turn(*replies: str | Fault) -> Callable[[dict], str | Fault]:
    """Replies one after the other, the last one for ever."""
    left, lock = list(replies), threading.Lock()

    def respond(body: dict) -> str | Fault:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return respond


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
