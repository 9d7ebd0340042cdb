"""Asking through a provider's batch interface: submit now, collect now or on a later run.

Every reply that came is in the response store; a request that is under way, in whichever batch of
whichever run, is not submitted again. What is submitted is noted on disk before it is sent, so
that after a kill the provider is asked whether it has it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from longalign_core.chat_client.batch_packing import Packing, PartLimits
from longalign_core.chat_client.batch_results import Collecting
from longalign_core.chat_client.batch_state import PACKED, SUBMITTED, SUBMITTING, BatchState
from longalign_core.chat_client.batch_submission import Submission
from longalign_core.chat_client.batch_tries import Tries
from longalign_core.chat_client.batch_wire import BatchWire, open_batch_wire
from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest, Endpoint, Spending
from longalign_core.chat_client.client import ChatClient
from longalign_core.chat_client.faults import TOO_LONG, Clock, Failure, FailureKind, SystemClock
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.errors import StoreError

MAX_TRIES = 3
NO_LIMITS = PartLimits()
_FIRST_POLL_SECONDS = 10.0
_LONGEST_POLL_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What one collection brought.

    Attributes:
        num_stored: Replies stored.
        num_pending: Requests still under way.
        num_batches: Batches still under way.
        num_damaged: Result lines that could not be read.
        failures: Why requests came back without a reply, by their keys.
    """

    num_stored: int = 0
    num_pending: int = 0
    num_batches: int = 0
    num_damaged: int = 0
    failures: dict[str, CallFailedError] = field(default_factory=dict)


class BatchClient:
    """The batches of one endpoint; an async context manager. One process at a time may use a folder.

    Attributes:
        num_submitted: Requests that the provider took.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        responses: ResponseStore,
        folder: Path,
        *,
        timeout_seconds: float,
        spending: Spending | None = None,
        clock: Clock | None = None,
        part_limits: PartLimits = NO_LIMITS,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            endpoint: Where batches go.
            responses: Where replies are kept. The client does not close it.
            folder: Local folder of what is under way; lost with it is the way to match what was submitted.
            timeout_seconds: Longest silence of the endpoint within one exchange.
            spending: The budget; None spends without one. It has to refuse what does not fit rather than wait
                for replies, which only a later collection brings.
            clock: Time for waits; None is the machine's.
            part_limits: Limits of a batch below the provider's own, as some gateways have them.
        """
        self._endpoint = endpoint
        self._responses = responses
        self._folder = folder
        self._timeout_seconds = timeout_seconds
        self._spending = spending
        self._clock = clock or SystemClock()
        self._part_limits = part_limits
        self._recovered = False
        self._lock: BinaryIO | None = None

    async def __aenter__(self) -> BatchClient:
        self._lock = _locked(self._folder)
        self._state = BatchState(self._folder)
        self._wire: BatchWire = open_batch_wire(self._endpoint, self._timeout_seconds)
        self._tries = Tries(self._endpoint, self._clock)
        self._packing = Packing(self._state, self._wire, self._part_limits)
        self._submission = Submission(self._endpoint, self._state, self._wire, self._tries, self._spending)
        # Parts that an earlier run packed and did not send are packed again if they are still wanted.
        for part in self._state.parts(PACKED):
            self._submission.take_apart(part)
        for ticket in self._packing.loose_tickets():
            self._give_back(ticket)
        self._state.forget_exhausted(MAX_TRIES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for ticket in self._packing.discard():
            self._give_back(ticket)
        for part in self._state.parts(PACKED):
            self._submission.take_apart(part)
        self._state.close()
        if self._lock is not None:
            self._lock.close()
        await self._wire.close()

    @property
    def num_submitted(self) -> int:
        """Requests that the provider took."""
        return self._submission.num_submitted

    async def check(self, model: str) -> None:
        """Make sure, before anything is spent, that the endpoint answers, knows the model, and has batches.

        Raises:
            EndpointError: One of these does not hold.
        """
        online = ChatClient(
            self._endpoint,
            self._responses,
            max_in_flight=1,
            timeout_seconds=self._timeout_seconds,
            max_retries=self._tries.max_retries,
            clock=self._clock,
        )
        async with online:
            await online.check(model)
        await self._submission.check(model)

    def answer(self, request: ChatRequest) -> ChatReply | None:
        """The reply to a request; None while there is none but may be.

        Raises:
            CallFailedError: There is none, for good or after several tries.
        """
        if reply := self._responses.get(request.key):
            return reply
        known = self._state.failure(request.key)
        if known is None:
            return None
        is_passing = known.failure.kind is not FailureKind.CALL
        if is_passing and (known.num_tries < MAX_TRIES or self._state.is_under_way(request.key)):
            return None
        raise CallFailedError(known.failure.reason, known.failure.detail, is_passing)

    async def add(self, request: ChatRequest) -> bool:
        """Have a request go out with the next part, unless it is answered, under way, or was given up.

        A part that is full is submitted.

        Returns:
            Whether the request is new.

        Raises:
            BudgetError: The budget is used up. What was added before is still to be submitted by `flush`.
            EndpointError: A part was refused.
        """
        await self._recover()
        key = request.key
        if key in self._packing or self._state.is_under_way(key) or self._is_decided(request):
            return False
        try:
            line = self._wire.line_of(request)
        except CallFailedError as error:
            self._state.failed(key, Failure(kind=FailureKind.CALL, reason=error.reason, detail=error.detail))
            return False
        if not self._packing.fits_at_all(len(line)):
            detail = f"{len(line)} bytes, where a batch may have {self._packing.max_bytes}"
            self._state.failed(key, Failure(kind=FailureKind.CALL, reason=TOO_LONG, detail=detail))
            return False
        ticket = None
        if self._spending is not None:
            ticket = await self._spending.admit(request)
            self._packing.note_ticket(ticket)
        if part := self._packing.add(request, len(line), ticket):
            await self._submission.submit(part)
        return True

    async def flush(self) -> None:
        """Submit what was added.

        Raises:
            EndpointError: A part was refused.
        """
        for part in self._packing.close_all():
            await self._submission.submit(part)

    async def submit(self, requests: Iterable[ChatRequest]) -> int:
        """Submit requests, read one by one; those answered or under way are left out.

        Returns:
            Requests that are new.

        Raises:
            BudgetError: The budget is used up; what it admitted was submitted.
            EndpointError: A part was refused.
        """
        num_new = 0
        try:
            for request in requests:
                num_new += await self.add(request)
        finally:
            await self.flush()
        return num_new

    async def collect(self) -> Collected:
        """Look at every batch under way, store what came, and submit what waited for room.

        Raises:
            EndpointError: A batch failed as a whole, or the endpoint does not answer; all else was collected.
        """
        await self._recover(again=True)
        collecting = Collecting(
            self._endpoint, self._state, self._wire, self._tries, self._submission, self._responses, self._spending
        )
        await collecting.run()
        if collecting.stop is not None:
            raise collecting.stop
        await self._submission.submit_waiting()
        return Collected(
            num_stored=collecting.num_stored,
            num_pending=self._state.num_under_way(),
            num_batches=len(self._state.parts(SUBMITTED)) + len(self._state.parts(SUBMITTING)),
            num_damaged=collecting.num_damaged,
            failures=collecting.failures,
        )

    async def wait(self, seconds: float) -> Collected:
        """Collect until nothing is under way or the time is over, at growing intervals.

        Raises:
            EndpointError: As `collect`.
        """
        deadline = self._clock.monotonic() + seconds
        interval = _FIRST_POLL_SECONDS
        total = await self.collect()
        while total.num_pending and (left := deadline - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(interval, left))
            interval = min(interval * 2, _LONGEST_POLL_SECONDS)
            latest = await self.collect()
            total = Collected(
                num_stored=total.num_stored + latest.num_stored,
                num_pending=latest.num_pending,
                num_batches=latest.num_batches,
                num_damaged=total.num_damaged + latest.num_damaged,
                failures=total.failures | latest.failures,
            )
        return total

    async def _recover(self, *, again: bool = False) -> None:
        """Find out about parts whose submission was begun and not heard of: always before anything is added."""
        if again or not self._recovered:
            await self._submission.recover()
            self._recovered = True

    def _is_decided(self, request: ChatRequest) -> bool:
        try:
            return self.answer(request) is not None
        except CallFailedError:
            return True

    def _give_back(self, ticket: str) -> None:
        if self._spending is not None:
            self._spending.abandon(ticket, sent=False)


def _locked(folder: Path) -> BinaryIO:
    """Keep other processes out of a folder for as long as the file is open."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("wb")
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be used ({error.strerror}); change the scratch") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreError(
            f"another process uses the batches in {folder}; wait until it ends, or two would submit the same"
        ) from None
    return file
