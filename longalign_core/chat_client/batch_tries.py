"""Exchanges about batches, tried again while the fault is a passing one."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from longalign_core.chat_client.calls import Endpoint
from longalign_core.chat_client.faults import (
    Clock,
    Failure,
    FailureKind,
    backoff_seconds,
    describe_failure,
    stop_message,
)
from longalign_core.chat_client.wire import ConnectionFailedError, HttpError, MalformedReplyError
from longalign_core.errors import EndpointError

Result = TypeVar("Result")
_MAX_RETRIES = 5
# Statuses below 500 that do not say whether the request was carried out.
_UNCLEAR_STATUSES = frozenset({408, 409})


@dataclass(frozen=True, slots=True)
class Failed:
    """One exchange that failed.

    Attributes:
        failure: What it means.
        status: HTTP status; None when there was no response.
    """

    failure: Failure
    status: int | None

    @property
    def surely_refused(self) -> bool:
        """Whether the endpoint said that it did nothing."""
        return self.status is not None and 400 <= self.status < 500 and self.status not in _UNCLEAR_STATUSES


class Tries:
    """Tries of exchanges with one endpoint."""

    max_retries = _MAX_RETRIES

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        """For one endpoint and its time."""
        self._endpoint = endpoint
        self._clock = clock
        self._draw = random.Random()

    async def once(self, exchange: Callable[[], Awaitable[Result]]) -> Result | Failed:
        """One try."""
        key = self._endpoint.api_key()
        try:
            return await exchange()
        except (HttpError, ConnectionFailedError, TimeoutError, MalformedReplyError) as error:
            failure = describe_failure(error, key=key, now=self._clock.wall_time())
            return Failed(failure, error.status if isinstance(error, HttpError) else None)

    async def until_clear(self, exchange: Callable[[], Awaitable[Result]], model: str) -> Result | Failed:
        """Try until it works, or fails for a reason that does not pass.

        Raises:
            EndpointError: The reason passes but did not within all tries.
        """
        for attempt in range(_MAX_RETRIES + 1):
            outcome = await self.once(exchange)
            if not isinstance(outcome, Failed) or outcome.failure.kind is not FailureKind.PASSING:
                return outcome
            if attempt < _MAX_RETRIES:
                await self.pause(attempt, outcome)
        assert isinstance(outcome, Failed)
        raise self.stop(outcome.failure, model)

    async def until_done(self, exchange: Callable[[], Awaitable[Result]], model: str) -> Result:
        """Try until it works.

        Raises:
            EndpointError: It does not.
        """
        outcome = await self.until_clear(exchange, model)
        if isinstance(outcome, Failed):
            raise self.stop(outcome.failure, model)
        return outcome

    async def pause(self, attempt: int, failed: Failed) -> None:
        """Wait before the next try, as the endpoint asked or as is usual."""
        await self._clock.sleep(backoff_seconds(attempt, failed.failure.retry_after_seconds, self._draw))

    def stop(self, failure: Failure, model: str) -> EndpointError:
        """What the work ends with when an endpoint does not answer."""
        return EndpointError(stop_message(self._endpoint, failure, model))
