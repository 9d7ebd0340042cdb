"""One request through all its tries: admitted by the budget, let through the gate, sent, kept, settled.

Also where it is decided that no further request is sent: the circuit breaker.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest, Endpoint, Spending
from longalign_core.chat_client.faults import (
    FILTERED,
    TOO_LONG,
    UNREACHABLE,
    Clock,
    Failure,
    FailureKind,
    backoff_seconds,
    describe_failure,
    stop_message,
)
from longalign_core.chat_client.flow_control import CONTINUING, FRESH, RESUMED, Gate, Passage
from longalign_core.chat_client.rate_limits import actual_cost, estimated_cost, reported_limits
from longalign_core.chat_client.wire import Arrival, ConnectionFailedError, HttpError, MalformedReplyError, Wire
from longalign_core.errors import EndpointError, LongAlignError

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Keep = Callable[[ChatReply], Awaitable[ChatReply]]
# So many calls given up one after the other, none answered between, mean that the fault is not theirs.
_FAILURES_THAT_STOP = 20


@dataclass(slots=True)
class _Call:
    """A request between its tries.

    Attributes:
        rank: In the gate; RESUMED once it was admitted or sent.
        number: Its place in the gate's order.
        claimed: Whether it holds a claim of the gate.
        maybe_charged: Whether a try with this ticket may be charged though no reply came.
        ticket: Of the budget for the tries to come, until it is settled or abandoned; None without a budget.
    """

    rank: int
    number: int
    claimed: bool = False
    maybe_charged: bool = False
    ticket: str | None = None


class Sender:
    """Sends requests to one endpoint until they are answered, cannot be, or nothing may be sent any more.

    Attributes:
        num_retries: Tries beyond the first of a call.
        owed: Tasks whose reply is on its way or being kept; it is paid for, so it is worth waiting for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        wire: Wire,
        *,
        max_in_flight: int,
        timeout_seconds: float,
        max_retries: int,
        spending: Spending | None,
        clock: Clock,
    ) -> None:
        """Arguments as of `ChatClient`."""
        self.num_retries = 0
        self.owed: set[asyncio.Task[Any]] = set()
        self._endpoint = endpoint
        self._wire = wire
        self._timeout_seconds = timeout_seconds
        self._max_retries = max_retries
        self._spending = spending
        self._clock = clock
        self._gate = Gate(max_in_flight, clock)
        self._draw = random.Random()
        self._failures_in_row = 0

    async def send(self, request: ChatRequest, keep: Keep) -> ChatReply:
        """The endpoint's reply, as `keep` returned it. To be called by a task of its own.

        The request's ticket, where there is a budget, is settled once the reply is kept, and abandoned
        whatever else happens.

        Raises:
            CallFailedError: This call was given up.
            LongAlignError: No further call can be sent.
        """
        call = _Call(CONTINUING if request.continues else FRESH, self._gate.number())
        task = asyncio.current_task()
        assert task is not None
        call.ticket = await self._admit(request, call) if self._spending else None
        try:
            return await self._answer(request, call, task, keep)
        except BaseException:
            self._abandon(call, sent=call.maybe_charged)
            raise
        finally:
            self.owed.discard(task)

    async def attempt(self, send: Callable[[], Awaitable[Result]]) -> Result | Failure:
        """One try of anything, without a place in flight."""
        key = self._endpoint.api_key()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await send()
        except (HttpError, ConnectionFailedError, TimeoutError, MalformedReplyError) as error:
            return describe_failure(error, key=key, now=self._clock.wall_time())

    def stop(self, error: LongAlignError) -> LongAlignError:
        """Send nothing any more; calls on the wire go on. Returns what all others end with."""
        self._gate.close(error)
        return self._gate.closed or error

    def stop_for(self, failure: Failure, model: str) -> LongAlignError:
        """The same for what an endpoint answered."""
        return self.stop(EndpointError(stop_message(self._endpoint, failure, model)))

    async def _admit(self, request: ChatRequest, call: _Call) -> str:
        assert self._spending is not None
        await self._gate.claim(call.rank, call.number)
        try:
            ticket = await self._spending.admit(request)
        except BaseException as error:
            self._gate.unclaim()
            if isinstance(error, LongAlignError):
                raise self.stop(error) from None
            raise
        call.rank, call.claimed = RESUMED, True
        return ticket

    async def _admit_again(self, request: ChatRequest, call: _Call) -> None:
        """A try that may be charged keeps its ticket as spent; the next one is a further expense, with its own."""
        self._abandon(call, sent=True)
        call.maybe_charged = False
        if self._spending is None:
            return
        # Without a claim: it would keep a place from others for as long as this call waits for its next try.
        try:
            call.ticket = await self._spending.admit(request)
        except LongAlignError as error:
            raise self.stop(error) from None

    async def _answer(self, request: ChatRequest, call: _Call, task: asyncio.Task[Any], keep: Keep) -> ChatReply:
        """Try until it works, cannot work, or was tried often enough."""
        not_before = self._clock.monotonic()
        for attempt in range(self._max_retries + 1):
            outcome = await self._try(request, call, not_before, task, keep)
            if isinstance(outcome, ChatReply):
                self._failures_in_row = 0
                return outcome
            call.maybe_charged |= outcome.maybe_charged
            if error := self._gate.closed:
                raise error
            if outcome.kind is FailureKind.CALL or attempt == self._max_retries:
                raise await self._given_up(outcome, request.model)
            log.info("a model call failed (%s), try %d of %d", outcome.reason, attempt + 1, self._max_retries + 1)
            wait = backoff_seconds(attempt, outcome.retry_after_seconds, self._draw)
            not_before = self._clock.monotonic() + wait
            self.num_retries += 1
            if call.maybe_charged:
                await self._admit_again(request, call)
        raise AssertionError("the last try returns or raises")

    async def _try(
        self, request: ChatRequest, call: _Call, not_before: float, task: asyncio.Task[Any], keep: Keep
    ) -> ChatReply | Failure:
        claimed, call.claimed = call.claimed, False
        cost = estimated_cost(request)
        passage = await self._gate.enter(cost, call.rank, call.number, not_before=not_before, claimed=claimed)
        call.rank = RESUMED
        outcome: Arrival | Failure | None = None
        self.owed.add(task)
        try:
            outcome = await self._arrival(request, call)
            if isinstance(outcome, Arrival):
                # Kept, whoever has lost interest in it, before its place goes to the next: so a kill costs no more
                # answered calls than there are places.
                return await _unbroken(self._keep(outcome.reply, call, keep))
            return outcome
        finally:
            if not isinstance(outcome, Arrival):
                self.owed.discard(task)
            # First what the outcome means for all, then the place for the next.
            self._learn(outcome, passage, request.model)
            reports = reported_limits(outcome.headers, self._clock.wall_time()) if outcome else {}
            actual = actual_cost(outcome.reply, cost) if isinstance(outcome, Arrival) else None
            self._gate.leave(passage, actual, reports)

    async def _arrival(self, request: ChatRequest, call: _Call) -> Arrival | Failure:
        try:
            return await self.attempt(lambda: self._wire.complete(request))
        except CallFailedError:  # A request that cannot be written down: nothing was sent.
            raise
        except LongAlignError as error:  # A key that no header can carry, or settings: nothing was sent either.
            raise self.stop(error) from None
        except BaseException:
            call.maybe_charged = True
            raise

    def _learn(self, outcome: Arrival | Failure | None, passage: Passage, model: str) -> None:
        if isinstance(outcome, Arrival):
            self._gate.limit.succeeded()
        elif outcome:
            if outcome.kind is FailureKind.ENDPOINT:
                self.stop_for(outcome, model)
            if outcome.overload:
                self._gate.limit.overloaded(passage.epoch)
            # What a server asks of one call holds for the others too.
            self._gate.hold(outcome.retry_after_seconds or 0.0)

    async def _given_up(self, failure: Failure, model: str) -> LongAlignError:
        if failure.reason == UNREACHABLE:
            again = await self.attempt(self._wire.list_models)
            if isinstance(again, Failure) and again.reason == UNREACHABLE:
                return self.stop_for(failure, model)
        if failure.reason not in (TOO_LONG, FILTERED):
            self._failures_in_row += 1
        if self._failures_in_row >= _FAILURES_THAT_STOP:
            return self.stop_for(failure, model)
        return CallFailedError(failure.reason, failure.detail, failure.kind is FailureKind.PASSING)

    async def _keep(self, reply: ChatReply, call: _Call, keep: Keep) -> ChatReply:
        try:
            kept = await keep(reply)
        except BaseException as error:
            self._abandon(call, sent=True)
            if isinstance(error, LongAlignError):
                # What cannot be kept would be paid for again.
                raise self.stop(error) from None
            raise
        ticket, call.ticket = call.ticket, None
        if self._spending and ticket is not None:
            try:
                self._spending.settle(ticket, reply)
            except LongAlignError as error:
                raise self.stop(error) from None
        return kept

    def _abandon(self, call: _Call, *, sent: bool) -> None:
        ticket, call.ticket = call.ticket, None
        if self._spending and ticket is not None:
            try:
                self._spending.abandon(ticket, sent=sent)
            except LongAlignError as error:  # A ledger that cannot be written: nothing more may be spent.
                raise self.stop(error) from None


async def _unbroken(work: Coroutine[Any, Any, Result]) -> Result:
    """Await work to its end, even when the awaiting task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
