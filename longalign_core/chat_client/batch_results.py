"""Results of batches into the response store, one line at a time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import BinaryIO

from longalign_core.chat_client.batch_files import read_request
from longalign_core.chat_client.batch_state import SUBMITTED, BatchState, PackedRequest
from longalign_core.chat_client.batch_submission import Submission
from longalign_core.chat_client.batch_tries import Failed, Tries
from longalign_core.chat_client.batch_wire import NO_RESULT, BatchStatus, BatchWire, Part, Phase, ResultLine
from longalign_core.chat_client.calls import CallFailedError, ChatReply, Endpoint, Spending
from longalign_core.chat_client.faults import Failure, FailureKind
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.errors import EndpointError

log = logging.getLogger(__name__)
_DOWNLOADS = 3
# Results that came broken from so many collections are not there to be had: they were paid for and are lost.
_COLLECTIONS = 3


class Collecting:
    """One look at every batch under way.

    Attributes:
        num_stored: Replies stored.
        num_damaged: Result lines that could not be read.
        failures: Why requests came back without a reply, by their keys.
        stop: Why no further call can succeed; None when nothing says so.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        state: BatchState,
        wire: BatchWire,
        tries: Tries,
        submission: Submission,
        responses: ResponseStore,
        spending: Spending | None,
    ) -> None:
        """Nothing is looked at yet."""
        self.num_stored = 0
        self.num_damaged = 0
        self.failures: dict[str, CallFailedError] = {}
        self.stop: EndpointError | None = None
        self._endpoint = endpoint
        self._state = state
        self._wire = wire
        self._tries = tries
        self._submission = submission
        self._responses = responses
        self._spending = spending

    async def run(self) -> None:
        """Collect what has ended.

        Raises:
            EndpointError: The endpoint does not answer, or does not know a batch.
        """
        for part in self._state.parts(SUBMITTED):
            status = await self._status(part)
            if status.phase is Phase.FAILED:
                error = self._submission.not_begun(part, status)
                self.stop = self.stop or error
            elif status.phase is Phase.ENDED:
                await self._take(part, status)

    async def _status(self, part: Part) -> BatchStatus:
        batch = part.batch
        assert batch is not None, "a submitted part has a batch"
        outcome = await self._tries.until_clear(lambda: self._wire.status(batch), part.model)
        if not isinstance(outcome, Failed):
            return outcome
        if outcome.status == 404:
            raise EndpointError(
                f"the {self._endpoint.role} endpoint {self._endpoint.place} does not know the batch {batch} of "
                f"{part.num_requests} requests; use the key and the URL it was submitted with, or remove the folder of "
                "batches from the scratch to submit, and pay, again"
            )
        raise self._tries.stop(outcome.failure, part.model)

    async def _take(self, part: Part, status: BatchStatus) -> None:
        """Store a batch's results; what is missing from results that are whole has failed."""
        for attempt in range(_DOWNLOADS):
            is_whole, num_damaged = await self._download(part, status, attempt)
            left = self._state.requests_of(part.name)
            if not left or (is_whole and not num_damaged and status.missing.reason != NO_RESULT):
                break
        else:
            if self._state.downloaded(part.name) < _COLLECTIONS:
                log.warning("results of %s are not whole: %d replies are missing", status.batch, len(left))
                return
        self.num_damaged += num_damaged
        for packed in left:
            self._fail(packed, status.missing, charged=status.missing.reason == NO_RESULT, model=part.model)
        self._state.settle(part.name)

    async def _download(self, part: Part, status: BatchStatus, attempt: int) -> tuple[bool, int]:
        """Read a batch's results once; whether they ended as they should, and how many lines are damaged."""
        num_damaged = 0

        async def read() -> None:
            nonlocal num_damaged
            with self._state.file_of(part.name).open("rb") as requests:
                async for line in self._wire.results(status, part.model):
                    if line.key is None:
                        num_damaged += 1
                    else:
                        await self._keep(part, line, line.key, requests)

        outcome = await self._tries.once(read)
        if not isinstance(outcome, Failed):
            return True, num_damaged
        if outcome.failure.kind is FailureKind.ENDPOINT and outcome.status != 404:
            raise self._tries.stop(outcome.failure, part.model)
        await self._tries.pause(attempt, outcome)
        return False, num_damaged

    async def _keep(self, part: Part, line: ResultLine, key: str, requests: BinaryIO) -> None:
        packed = self._state.request_in(part.name, key)
        if packed is None:  # Kept before the run was killed, or named twice.
            return
        if line.reply is not None:
            await self._store(packed, replace(line.reply, batch=True), requests)
        elif line.failure is not None:
            self._fail(packed, line.failure, charged=line.charged, model=part.model)

    async def _store(self, packed: PackedRequest, reply: ChatReply, requests: BinaryIO) -> None:
        request = read_request(requests, packed)
        await asyncio.to_thread(self._responses.put, request, reply)
        if self._spending is not None and packed.ticket is not None:
            self._spending.settle(packed.ticket, reply)
        self._state.answered(packed.key)
        self.num_stored += 1

    def _fail(self, packed: PackedRequest, failure: Failure, *, charged: bool, model: str) -> None:
        if self._spending is not None and packed.ticket is not None:
            self._spending.abandon(packed.ticket, sent=charged)
        self._state.failed(packed.key, failure)
        is_passing = failure.kind is not FailureKind.CALL
        self.failures[packed.key] = CallFailedError(failure.reason, failure.detail, is_passing)
        if failure.kind is FailureKind.ENDPOINT:
            self.stop = self.stop or self._tries.stop(failure, model)
