"""What tests of the providers' interfaces share: each by its name, with what is its own, and one request over it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from longalign_core.chat_client import ChatClient, ChatReply, ChatRequest, Endpoint, ResponseStore
from longalign_core.chat_client.wire import Wire, open_wire
from longalign_core.records import Message
from tests.chat_setup import FastClock

Result = TypeVar("Result")
APIS = ("compatible", "openai", "openai-responses", "anthropic")
DOCUMENT = "line one\r\nline\ttwo \x00 e\u0301 \u00e9 \u2028 \U0001f600 “quoted\\” \ufeff 文档 </document>  \n\n \t"


def document_request(rest: str, *, document: str = DOCUMENT, **changes: object) -> ChatRequest:
    values = {"model": "m", "temperature": 1.0, "top_p": 1.0, "max_tokens": 16, "purpose": "test", **changes}
    content = document + rest
    return ChatRequest(messages=(Message(role="user", content=content),), shared_characters=len(document), **values)


def over_wire(url: str, api: str, work: Callable[[Wire], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        wire = open_wire(Endpoint(url, "generator", api), timeout_seconds=20)
        try:
            return await work(wire)
        finally:
            await wire.close()

    return asyncio.run(run())


def reply_over(url: str, api: str, request: ChatRequest) -> ChatReply:
    return over_wire(url, api, lambda wire: wire.complete(request)).reply


def over_client(
    url: str,
    api: str,
    responses: ResponseStore,
    work: Callable[[ChatClient], Awaitable[Result]],
    *,
    max_retries: int = 0,
) -> Result:
    async def run() -> Result:
        client = ChatClient(
            Endpoint(url, "generator", api),
            responses,
            max_in_flight=4,
            timeout_seconds=20,
            max_retries=max_retries,
            clock=FastClock(),
        )
        async with client:
            return await work(client)

    return asyncio.run(run())


def clear_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every variable away that a provider's SDK or this project reads."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_")) or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
