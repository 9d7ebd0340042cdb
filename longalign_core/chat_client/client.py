"""Asking one endpoint, with patience.

Every answered call is in the response store before its reply is handed on; a request that was
answered before, by whichever run, is not sent again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest, Endpoint
from longalign_core.chat_client.faults import (
    FILTERED,
    KEY_REFUSED,
    TOO_LONG,
    UNKNOWN_MODEL,
    UNREACHABLE,
    Clock,
    Failure,
    FailureKind,
    SystemClock,
    backoff_seconds,
    describe_failure,
    stop_message,
)
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.chat_client.wire import ConnectionFailedError, HttpError, MalformedReplyError, Wire, open_wire
from longalign_core.errors import EndpointError
from longalign_core.records import Message

log = logging.getLogger(__name__)
Result = TypeVar("Result")
# So many calls given up one after the other, none answered between, mean that the fault is not theirs.
_FAILURES_THAT_STOP = 20
# Replies on their way are paid for: so long are they waited for when the work stops on an error.
_LAST_REPLIES_SECONDS = 30.0


class ChatClient:
    """Asks one endpoint; an async context manager, for use within one event loop.

    Attributes:
        num_calls: Replies that the endpoint gave.
        num_stored: Replies that came from the response store or from an identical call under way.
        prompt_tokens: Of every reply handed on, stored ones included: what the work rests on,
            whichever run paid for it. Replies without a usage report count as 0.
        reply_tokens: The same of the replies.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        responses: ResponseStore,
        *,
        max_in_flight: int,
        timeout_seconds: float,
        max_retries: int,
        clock: Clock | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            endpoint: Where to ask.
            responses: Where answered calls are kept. The client does not close it.
            max_in_flight: Requests under way at once.
            timeout_seconds: Longest wait for one whole reply.
            max_retries: Further tries of a call that failed for a passing reason.
            clock: Time for waits between tries; None is the machine's.
        """
        self.num_calls = 0
        self.num_stored = 0
        self.prompt_tokens = 0
        self.reply_tokens = 0
        self._endpoint = endpoint
        self._responses = responses
        self._timeout_seconds = timeout_seconds
        self._max_retries = max_retries
        self._clock = clock or SystemClock()
        self._slots = asyncio.Semaphore(max_in_flight)
        self._pending: dict[str, asyncio.Task[ChatReply]] = {}
        self._on_the_wire: set[str] = set()
        self._draw = random.Random()
        self._resume_at = 0.0
        self._failures_in_row = 0
        self._stopped: str | None = None
        self._opened: Wire | None = None

    async def __aenter__(self) -> ChatClient:
        self._opened = open_wire(self._endpoint, self._timeout_seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = self._stopped or "the client is closed"
        owed = [self._pending[key] for key in self._on_the_wire]
        if owed and (error is None or isinstance(error, Exception)):
            await asyncio.wait(owed, timeout=_LAST_REPLIES_SECONDS)
        remaining = list(self._pending.values())
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)
        await self._wire.close()

    async def check(self, model: str) -> None:
        """Make sure, before anything is spent, that the endpoint answers, takes the key and knows the model.

        Asks for the model, then for the list of models; only where neither names it, and the server is
        not one that would, for a reply of one token.

        Raises:
            EndpointError: One of the three does not hold.
        """
        named = await self._try(lambda: self._wire.model_named(model))
        if not isinstance(named, Failure):
            return
        if named.reason in (UNREACHABLE, KEY_REFUSED):
            raise self._stop(named, model)
        listed = await self._try(self._wire.list_models)
        if not isinstance(listed, Failure):
            if model in listed:
                return
            if named.reason == UNKNOWN_MODEL and self._endpoint.api != "compatible":
                # The providers' own interfaces describe every model they serve; other servers leave some out.
                raise self._stop(named, model)
        probe = ChatRequest(
            model=model,
            messages=(Message(role="user", content="Hi"),),
            temperature=0.0,
            top_p=1.0,
            max_tokens=1,
            purpose="check",
        )
        try:
            await self._persist(lambda: self._wire.complete(probe), model)
        except CallFailedError as error:
            raise EndpointError(
                f"the {self._endpoint.role} endpoint {self._endpoint.place} does not list model {model!r} and "
                f"gave no reply from it ({error.reason}: {error.detail}); correct the model's name or the endpoint"
            ) from None

    async def ask(self, request: ChatRequest) -> ChatReply:
        """The reply to a request, from the store or from the endpoint.

        A reply without words, or one that was cut short, is a reply too: whether it is of use is
        the caller's to say. Identical requests under way at the same time are sent once.

        Raises:
            CallFailedError: This call was given up.
            EndpointError: No further call can succeed; those answered so far are kept.
            StoreError: The response store cannot be used.
        """
        key = request.key
        task = self._pending.get(key)
        shared = task is not None
        if task is None:
            # A task of its own: a caller that is cancelled does not lose a reply that is on its way.
            task = asyncio.create_task(self._obtain(key, request))
            self._pending[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        reply = await asyncio.shield(task)
        if shared:
            reply = replace(reply, stored=True)
        self.num_stored += reply.stored
        self.prompt_tokens += reply.prompt_tokens or 0
        self.reply_tokens += reply.reply_tokens or 0
        return reply

    @property
    def _wire(self) -> Wire:
        assert self._opened is not None, "use the client as an async context manager"
        return self._opened

    def _forget(self, key: str, task: asyncio.Task[ChatReply]) -> None:
        del self._pending[key]
        self._on_the_wire.discard(key)
        if not task.cancelled():
            task.exception()  # Seen, so asyncio does not report it when nobody waits any more.

    async def _obtain(self, key: str, request: ChatRequest) -> ChatReply:
        async def send() -> ChatReply:
            self._on_the_wire.add(key)
            try:
                return (await self._wire.complete(request)).reply
            except BaseException:
                self._on_the_wire.discard(key)
                raise

        if stored := await asyncio.to_thread(self._responses.get, key):
            return stored
        reply = await self._persist(send, request.model)
        kept = await asyncio.to_thread(self._responses.put, request, reply)
        self.num_calls += 1
        return kept

    async def _persist(self, send: Callable[[], Awaitable[Result]], model: str) -> Result:
        """Try until it works, cannot work, or was tried often enough."""
        for attempt in range(self._max_retries + 1):
            async with self._slots:
                while (left := self._resume_at - self._clock.monotonic()) > 0:
                    await self._clock.sleep(left)
                if self._stopped:
                    raise EndpointError(self._stopped)
                outcome = await self._try(send)
            if not isinstance(outcome, Failure):
                self._failures_in_row = 0
                return outcome
            if outcome.kind is FailureKind.ENDPOINT:
                raise self._stop(outcome, model)
            if outcome.kind is FailureKind.CALL or attempt == self._max_retries:
                raise await self._given_up(outcome, model)
            if self._stopped:
                raise EndpointError(self._stopped)
            if outcome.retry_after_seconds is not None:
                # What a server asks of one call holds for the others too.
                self._resume_at = max(self._resume_at, self._clock.monotonic() + outcome.retry_after_seconds)
            log.info("a model call failed (%s), try %d of %d", outcome.reason, attempt + 1, self._max_retries + 1)
            await self._clock.sleep(backoff_seconds(attempt, outcome.retry_after_seconds, self._draw))
        raise AssertionError("the last try returns or raises")

    async def _try(self, send: Callable[[], Awaitable[Result]]) -> Result | Failure:
        key = self._endpoint.api_key()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await send()
        except (HttpError, ConnectionFailedError, TimeoutError, MalformedReplyError) as error:
            return describe_failure(error, key=key, now=self._clock.wall_time())

    async def _given_up(self, failure: Failure, model: str) -> EndpointError | CallFailedError:
        if failure.reason == UNREACHABLE:
            again = await self._try(self._wire.list_models)
            if isinstance(again, Failure) and again.reason == UNREACHABLE:
                return self._stop(failure, model)
        if failure.reason not in (TOO_LONG, FILTERED):
            self._failures_in_row += 1
        if self._failures_in_row >= _FAILURES_THAT_STOP:
            return self._stop(failure, model)
        return CallFailedError(failure.reason, failure.detail, failure.kind is FailureKind.PASSING)

    def _stop(self, failure: Failure, model: str) -> EndpointError:
        self._stopped = self._stopped or stop_message(self._endpoint, failure, model)
        return EndpointError(self._stopped)
