"""What every provider's batch interface is to the client: a part goes in as one file, its results come out as lines.

Each interface is a module of its own (`openai_batch`, `anthropic_batch`). The requests inside are
built, and the replies read, by the same interface's module for single calls.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from longalign_core.chat_client.calls import ChatReply, ChatRequest, Endpoint
from longalign_core.chat_client.faults import Failure, FailureKind
from longalign_core.chat_client.wire import ConnectionFailedError, sdk_errors

EXPIRED = "batch expired"
CANCELLED = "batch cancelled"
NO_RESULT = "no result"
NO_OUTCOME = Failure(kind=FailureKind.PASSING, reason=NO_RESULT, detail="the results hold no line for it")


class Phase(Enum):
    """How far a batch is. A batch that ended may hold few results or none; one that failed was never begun."""

    RUNNING = auto()
    ENDED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """One batch as the provider describes it.

    Attributes:
        batch: The provider's id.
        results: What `BatchWire.results` needs to find them.
        missing: What a request without a result line means.
        detail: Why it failed, for people; empty where it did not.
        too_many_tokens: Whether it failed for being more than the account may have waiting at once.
    """

    batch: str
    phase: Phase
    results: tuple[str, ...] = ()
    missing: Failure = NO_OUTCOME
    detail: str = ""
    too_many_tokens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLine:
    """What became of one request.

    Attributes:
        key: The request's; None when the line cannot be read.
        reply: What the model replied; None where there is a failure.
        failure: Why there is no reply.
        charged: Whether the provider did the work, so that it may be charged for.
    """

    key: str | None
    reply: ChatReply | None = None
    failure: Failure | None = None
    charged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Requests of one model that go to the provider together.

    Attributes:
        name: Given to it before it is sent, and different for every part.
        newest: Id of the newest batch of the account before this part was sent; None when there was none.
        num_tokens: Of its prompts, estimated.
    """

    name: str
    model: str
    num_requests: int
    num_tokens: int
    newest: str | None = None
    batch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What looking for a part among the provider's batches found.

    Attributes:
        batch: Its batch; None when no batch is surely it.
        unclear: Batches that may be it but cannot be told apart before they end.
    """

    batch: str | None = None
    unclear: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands before, between and behind the lines of a part's file."""

    opening: bytes
    separator: bytes
    closing: bytes


class BatchWire(Protocol):
    """The batches of one endpoint: no retries, no memory.

    All methods raise HttpError, ConnectionFailedError, TimeoutError or MalformedReplyError.

    Attributes:
        max_requests: Most requests a part, as the provider documents it.
        max_bytes: The same of bytes, of the whole file.
        frame: Of a part's file.
    """

    max_requests: int
    max_bytes: int
    frame: Frame

    def line_of(self, request: ChatRequest) -> bytes:
        """A request as it stands in a part's file."""

    async def newest(self) -> str | None:
        """Id of the account's newest batch."""

    async def submit(self, part: Part, file: Path) -> str:
        """Have a part worked on, and give its batch's id."""

    async def find(self, part: Part, settled: frozenset[str], holds: Callable[[str], bool]) -> Search:
        """Look for a part that was perhaps submitted.

        Args:
            part: As it was when it was submitted.
            settled: Batches that are known to be other parts.
            holds: Whether a request's key is of this part.
        """

    async def status(self, batch: str) -> BatchStatus:
        """How far a batch is."""

    def results(self, status: BatchStatus, model: str) -> AsyncIterator[ResultLine]:
        """Results of a batch that ended, one by one and in any order."""

    async def close(self) -> None:
        """Close the connections."""


def open_batch_wire(endpoint: Endpoint, timeout_seconds: float) -> BatchWire:
    """The wire to an endpoint's batches; nothing is sent yet."""
    if endpoint.api == "anthropic":
        from longalign_core.chat_client.anthropic_batch import AnthropicBatchWire

        return AnthropicBatchWire(endpoint, timeout_seconds)
    from longalign_core.chat_client.openai_batch import OpenAIBatchWire

    return OpenAIBatchWire(endpoint, timeout_seconds)


def json_line(value: dict[str, Any]) -> bytes:
    """A value as one line of UTF-8 that no reader takes for two.

    Text stays as it is, so that Chinese takes three bytes a character and not six; only the characters that
    some readers end a line at are escaped, and all of them where there are lone surrogates.
    """
    words = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "\x85\u2028\u2029":
        words = words.replace(character, f"\\u{ord(character):04x}")
    try:
        return words.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines of a stream of bytes, without their ends; empty ones are left out. Only a line feed ends a line."""
    held: list[bytes] = []
    async for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            if line := b"".join((*held, line)).strip():
                yield line
            held.clear()
        held.append(rest)
    if line := b"".join(held).strip():
        yield line


def parse_line(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """The key and the rest of a result line; None when it is damaged."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
        return None
    return row["custom_id"], row


@contextmanager
def batch_errors(sdk: ModuleType) -> Iterator[None]:
    """Turn the errors of a provider's SDK into ours, and those of a body that is read after its head came."""
    import httpx2  # What both SDKs send with; loaded by them, so not before them.

    try:
        with sdk_errors(sdk):
            yield
    except httpx2.TimeoutException:
        raise TimeoutError from None
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise ConnectionFailedError(type(error).__name__) from None


@asynccontextmanager
async def closing_wire(wire: BatchWire) -> AsyncIterator[BatchWire]:
    """A wire for a block of work."""
    try:
        yield wire
    finally:
        await wire.close()
