"""Parts on their way to the provider: submitted once, looked for when nobody knows whether they arrived."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace

from longalign_core.chat_client.batch_files import write_body
from longalign_core.chat_client.batch_packing import waiting_tokens
from longalign_core.chat_client.batch_state import PACKED, SUBMITTED, SUBMITTING, BatchState
from longalign_core.chat_client.batch_tries import Failed, Tries
from longalign_core.chat_client.batch_wire import BatchStatus, BatchWire, Part
from longalign_core.chat_client.calls import Endpoint, Spending
from longalign_core.chat_client.faults import FailureKind
from longalign_core.errors import EndpointError

log = logging.getLogger(__name__)
# As OpenAI words it: openai-python, issue 2084.
_TOLD_LIMIT = re.compile(r"Limit:\s*([\d,]+)")
_TOO_MANY_WAITING = re.compile(r"token_limit|enqueued token", re.IGNORECASE)


class Submission:
    """Submits parts, each at most once.

    Attributes:
        num_submitted: Requests that the provider took.
    """

    def __init__(
        self, endpoint: Endpoint, state: BatchState, wire: BatchWire, tries: Tries, spending: Spending | None
    ) -> None:
        """Nothing is sent yet."""
        self.num_submitted = 0
        self._endpoint = endpoint
        self._state = state
        self._wire = wire
        self._tries = tries
        self._spending = spending

    async def check(self, model: str) -> None:
        """Make sure that the endpoint has batches.

        Raises:
            EndpointError: It has none, or does not answer.
        """
        outcome = await self._tries.until_clear(self._wire.newest, model)
        if not isinstance(outcome, Failed):
            return
        if outcome.status in (404, 405, 501):
            raise EndpointError(
                f"the {self._endpoint.role} endpoint {self._endpoint.place} has no batch interface (HTTP "
                f"{outcome.status}); set LONGALIGN_{self._endpoint.role.upper()}_CALLS to online"
            )
        raise self._tries.stop(outcome.failure, model)

    async def submit(self, part: Part) -> bool:
        """Submit a part that is noted; whether the provider took it now. Otherwise it waits, or is taken apart.

        Raises:
            EndpointError: It was refused, or the endpoint does not answer.
        """
        if not self._has_room(part):
            return False
        body = self._state.body_of(part.name)
        await asyncio.to_thread(write_body, self._state, self._wire, part)
        try:
            # Of the first try: a batch that it made without our knowing is newer, whenever it shows.
            part = replace(part, newest=await self._tries.until_done(self._wire.newest, part.model))
            for attempt in range(self._tries.max_retries + 1):
                self._state.intend(part.name, part.newest)
                outcome = await self._tries.once(lambda: self._wire.submit(part, body))
                if not isinstance(outcome, Failed):
                    self._accepted(part, outcome)
                    return True
                if not outcome.surely_refused:
                    await self._tries.pause(attempt, outcome)
                    if await self._is_decided(part):
                        return False
                    if attempt == self._tries.max_retries:
                        raise self._tries.stop(outcome.failure, part.model)
                    continue
                self._state.withdrawn(part.name)
                if self._is_left_for_later(part, outcome):
                    return False
                if outcome.failure.kind is not FailureKind.PASSING:
                    raise self._refused(part, outcome)
                if attempt < self._tries.max_retries:
                    await self._tries.pause(attempt, outcome)
        finally:
            body.unlink(missing_ok=True)
        log.warning("a batch of %d requests is left for later: the endpoint has no room for it", part.num_requests)
        return False

    async def submit_waiting(self) -> None:
        """Submit the parts that wait, as far as there is room for them.

        Raises:
            EndpointError: One was refused.
        """
        for part in self._state.parts(PACKED):
            if not await self.submit(part):
                return

    async def recover(self) -> None:
        """Find out about parts whose submission was begun and not heard of.

        Raises:
            EndpointError: The endpoint does not answer.
        """
        for part in self._state.parts(SUBMITTING):
            if not await self._is_decided(part):
                log.info("a batch of %d requests had not been submitted", part.num_requests)
                self.take_apart(part)

    def take_apart(self, part: Part) -> None:
        """Forget a part that no provider has or had; its requests may be submitted in another."""
        if self._spending is not None:
            for packed in self._state.requests_of(part.name):
                if packed.ticket is not None:
                    self._spending.abandon(packed.ticket, sent=False)
        self._state.dissolve(part.name)

    def not_begun(self, part: Part, status: BatchStatus) -> EndpointError | None:
        """What it means that a batch failed before it was begun: an error to stop with, or None when it waits."""
        if not status.too_many_tokens:
            self.take_apart(part)
            return EndpointError(
                f"the {self._endpoint.role} endpoint {self._endpoint.place} refused a batch of {part.num_requests} "
                f"requests to {part.model!r} ({status.detail}); mend what it names, then run again: none was worked on"
            )
        told = self._learn_limit(part, status.detail)
        self._state.withdrawn(part.name)
        if told is not None and part.num_tokens > told:
            if part.num_requests == 1:
                self.take_apart(part)
                return EndpointError(
                    f"a single request of about {part.num_tokens} tokens is more than the account may have waiting in "
                    f"batches to {part.model!r} ({told}); raise the account's limit or set generator_calls to online"
                )
            self.take_apart(part)
        return None

    def _accepted(self, part: Part, batch: str) -> None:
        self._state.submitted(part.name, batch)
        self.num_submitted += part.num_requests
        log.info("submitted a batch of %d requests to %s", part.num_requests, part.model)

    async def _is_decided(self, part: Part) -> bool:
        """Look for a part at the provider; False when it surely is not there."""

        def holds(key: str) -> bool:
            return self._state.request_in(part.name, key) is not None

        known = self._state.known_batches()
        found = await self._tries.until_done(lambda: self._wire.find(part, known, holds), part.model)
        if found.batch is not None:
            self._accepted(part, found.batch)
            return True
        if found.unclear:
            log.warning(
                "whether a batch of %d requests was submitted before the connection or the run ended cannot be told "
                "until these have ended: %s; nothing of it is submitted again before",
                part.num_requests,
                ", ".join(found.unclear),
            )
        return bool(found.unclear)

    def _under_way(self) -> list[Part]:
        return [*self._state.parts(SUBMITTED), *self._state.parts(SUBMITTING)]

    def _has_room(self, part: Part) -> bool:
        """Whether a part fits beside what is under way, as far as the limit was told."""
        limit = self._state.learnt(waiting_tokens(part.model))
        waiting = sum(one.num_tokens for one in self._under_way() if one.model == part.model)
        return limit is None or not waiting or waiting + part.num_tokens <= limit

    def _is_left_for_later(self, part: Part, outcome: Failed) -> bool:
        if not _TOO_MANY_WAITING.search(outcome.failure.detail):
            return False
        told = self._learn_limit(part, outcome.failure.detail)
        if told is not None and part.num_tokens > told and part.num_requests > 1:
            self.take_apart(part)
        return True

    def _learn_limit(self, part: Part, detail: str) -> int | None:
        """The most tokens an account may have waiting, as a refusal tells it; half the part where it stood alone."""
        told = _TOLD_LIMIT.search(detail)
        limit = int(told[1].replace(",", "")) if told else None
        if limit is None:
            others = [one for one in self._under_way() if one.name != part.name and one.model == part.model]
            if others or part.num_requests == 1:
                return None
            limit = part.num_tokens // 2
        self._state.learn(waiting_tokens(part.model), limit)
        return limit

    def _refused(self, part: Part, outcome: Failed) -> EndpointError:
        self.take_apart(part)
        if outcome.failure.kind is FailureKind.ENDPOINT:
            return self._tries.stop(outcome.failure, part.model)
        return EndpointError(
            f"the {self._endpoint.role} endpoint {self._endpoint.place} refused a batch of {part.num_requests} "
            f"requests ({outcome.failure.reason}: {outcome.failure.detail}); mend what it names, then run again"
        )
