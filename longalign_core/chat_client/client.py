"""Asking one endpoint, with patience.

Every answered call is in the response store before its reply is handed on; a request that was
answered before, by whichever run, is not sent again.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest, Endpoint, Spending
from longalign_core.chat_client.faults import KEY_REFUSED, UNKNOWN_MODEL, UNREACHABLE, Clock, Failure, SystemClock
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.chat_client.sending import Sender
from longalign_core.chat_client.wire import Wire, open_wire
from longalign_core.errors import EndpointError
from longalign_core.records import Message

log = logging.getLogger(__name__)


class ChatClient:
    """Asks one endpoint; an async context manager, for use within one event loop.

    Attributes:
        num_calls: Replies that the endpoint gave.
        num_stored: Replies that came from the response store or from an identical call under way.
        prompt_tokens: Of every reply handed on, stored ones included: what the work rests on,
            whichever run paid for it. Replies without a usage report count as 0.
        cached_tokens: Of the prompts', those the provider had cached when it was asked.
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
        spending: Spending | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            endpoint: Where to ask.
            responses: Where answered calls are kept. The client does not close it.
            max_in_flight: Most requests under way at once; fewer while the endpoint shows signs of overload.
            timeout_seconds: Longest wait for one whole reply.
            max_retries: Further tries of a call that failed for a passing reason.
            spending: The budget that every request must be admitted by; None spends without a cap.
            clock: Time for waits between tries; None is the machine's.
        """
        self.num_calls = 0
        self.num_stored = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.reply_tokens = 0
        self._endpoint = endpoint
        self._responses = responses
        self._max_in_flight = max_in_flight
        self._timeout_seconds = timeout_seconds
        self._max_retries = max_retries
        self._spending = spending
        self._clock = clock or SystemClock()
        self._pending: dict[str, asyncio.Task[ChatReply]] = {}
        self._wire: Wire | None = None
        self._opened: Sender | None = None
        # One thread, so that requests go on in the order in which they were asked, such as the longest first.
        self._reader = ThreadPoolExecutor(1, "stored-replies")
        # Not among the threads that callers use: a reply that waits to be kept holds its place in flight.
        self._keeper = ThreadPoolExecutor(4, "new-replies")

    async def __aenter__(self) -> ChatClient:
        self._wire = open_wire(self._endpoint, self._timeout_seconds)
        self._opened = Sender(
            self._endpoint,
            self._wire,
            max_in_flight=self._max_in_flight,
            timeout_seconds=self._timeout_seconds,
            max_retries=self._max_retries,
            spending=self._spending,
            clock=self._clock,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._wire is not None
        self._sender.stop(EndpointError("the client is closed"))
        # Replies on their way are paid for. Each comes or fails within the time that one try has.
        owed = [task for task in self._pending.values() if task in self._sender.owed]
        if owed and (error is None or isinstance(error, Exception)):
            log.log(
                logging.WARNING if error else logging.INFO,
                "waiting for the replies of %d model calls that are under way and paid for, at most %.0f s",
                len(owed),
                self._timeout_seconds,
            )
            await asyncio.wait(owed)
        remaining = list(self._pending.values())
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)
        self._reader.shutdown(wait=False)
        self._keeper.shutdown(wait=False)
        await self._wire.close()

    @property
    def num_retries(self) -> int:
        """Tries beyond the first of a call."""
        return self._opened.num_retries if self._opened else 0

    async def check(self, model: str) -> None:
        """Make sure, before anything is spent, that the endpoint answers, takes the key and knows the model.

        Asks for the model, then for the list of models; only where neither names it, and the server is
        not one that would, for a reply of a few tokens.

        Raises:
            EndpointError: One of the three does not hold.
        """
        assert self._wire is not None
        wire = self._wire
        named = await self._sender.attempt(lambda: wire.model_named(model))
        if not isinstance(named, Failure):
            return
        if named.reason in (UNREACHABLE, KEY_REFUSED):
            raise self._sender.stop_for(named, model)
        listed = await self._sender.attempt(wire.list_models)
        if not isinstance(listed, Failure):
            if model in listed:
                return
            if named.reason == UNKNOWN_MODEL and self._endpoint.api != "compatible":
                # The providers' own interfaces describe every model they serve; other servers leave some out.
                raise self._sender.stop_for(named, model)
        try:
            await asyncio.create_task(self._sender.send(_probe(model), _as_it_is))
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
            BudgetError: The budget allows no further call; those answered so far are kept.
            StoreError: The response store or the ledger cannot be used.
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
        self.cached_tokens += reply.cached_tokens or 0
        self.reply_tokens += reply.reply_tokens or 0
        return reply

    @property
    def _sender(self) -> Sender:
        assert self._opened is not None, "use the client as an async context manager"
        return self._opened

    def _forget(self, key: str, task: asyncio.Task[ChatReply]) -> None:
        del self._pending[key]
        if not task.cancelled():
            task.exception()  # Seen, so asyncio does not report it when nobody waits any more.

    async def _obtain(self, key: str, request: ChatRequest) -> ChatReply:
        in_thread = asyncio.get_running_loop().run_in_executor

        async def keep(reply: ChatReply) -> ChatReply:
            kept = await in_thread(self._keeper, self._responses.put, request, reply)
            self.num_calls += 1
            return kept

        if stored := await in_thread(self._reader, self._responses.get, key):
            return stored
        return await self._sender.send(request, keep)


def _probe(model: str) -> ChatRequest:
    """A request that any model that writes text answers: no sampling settings, and some accept no shorter reply."""
    return ChatRequest(
        model=model,
        messages=(Message(role="user", content="Hi"),),
        temperature=None,
        top_p=1.0,
        max_tokens=16,
        purpose="check",
    )


async def _as_it_is(reply: ChatReply) -> ChatReply:
    return reply
