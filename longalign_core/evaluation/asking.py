"""Asking many questions of one role's endpoint, which is opened only when a reply is not yet stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from types import TracebackType

import uvloop

from longalign_core.chat_client import CallFailedError, ChatClient, ChatReply, ChatRequest, Endpoint, ResponseStore
from longalign_core.chat_client.calls import Spending
from longalign_core.config.runtime import Runtime
from longalign_core.progress import track
from longalign_core.serving import calls_in_flight

log = logging.getLogger(__name__)
Outcome = ChatReply | CallFailedError


@dataclass(frozen=True, slots=True)
class RoleCalls:
    """What one role's calls rest on.

    Attributes:
        responses: Where its replies are kept.
        spending: The budget of further calls; None spends without one.
    """

    responses: ResponseStore
    spending: Spending | None = None


class Asker:
    """Asks a role's model. A context manager: leaving it ends a server that was started for it.

    A run that was killed goes on here: replies it got are in the response store and are not asked
    again, and when all of them are, no server is started.

    Attributes:
        given_up: Why calls were given up for reasons that pass, one entry a call. With any, what was
            asked must not become a product.
    """

    def __init__(
        self,
        role: str,
        open_endpoint: Callable[[], AbstractContextManager[Endpoint]],
        calls: RoleCalls,
        runtime: Runtime,
        weights: str | None = None,
    ) -> None:
        """Make an asker; nothing is opened yet.

        Args:
            role: "candidate" or "judge".
            open_endpoint: Gives the endpoint's context; called once, and only when needed.
            calls: Where replies are kept, and what may be spent.
            runtime: Calls under way at once, patience, retries.
            weights: Fingerprint of a local model's weights, part of the keys of its replies.
        """
        self.given_up: list[str] = []
        self._role = role
        self._open_endpoint = open_endpoint
        self._responses = calls.responses
        self._spending = calls.spending
        self._runtime = runtime
        self._weights = weights
        self._endpoint: Endpoint | None = None
        self._opened = ExitStack()

    def __enter__(self) -> Asker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def ask_all(self, requests: Sequence[ChatRequest], label: str) -> list[Outcome]:
        """The outcome of each request, in their order; they are sent in this order too.

        Raises:
            EndpointError: The endpoint cannot be opened or no call to it can succeed.
            StoreError: The response store cannot be used.
        """
        requests = [replace(request, weights=self._weights) for request in requests]
        outcomes: dict[str, Outcome] = {}
        with track(label, total=len(requests), unit="replies") as step:
            for request in requests:
                if stored := self._responses.get(request.key):
                    outcomes[request.key] = stored
                    step()
            missing = [request for request in requests if request.key not in outcomes]
            if missing:
                outcomes |= uvloop.run(self._ask(missing, self._open(), step))
        failures = [outcome for outcome in outcomes.values() if isinstance(outcome, CallFailedError)]
        if failures:
            log.warning("%d of %d calls to the %s were given up", len(failures), len(requests), self._role)
        self.given_up += [failure.reason for failure in failures if failure.passing]
        return [outcomes[request.key] for request in requests]

    def _open(self) -> Endpoint:
        if self._endpoint is None:
            self._endpoint = self._opened.enter_context(self._open_endpoint())
        return self._endpoint

    async def _ask(
        self, requests: Sequence[ChatRequest], endpoint: Endpoint, step: Callable[..., None]
    ) -> dict[str, Outcome]:
        client = ChatClient(
            endpoint,
            self._responses,
            max_in_flight=calls_in_flight(self._role, self._runtime),
            timeout_seconds=self._runtime.request_timeout_seconds,
            max_retries=self._runtime.max_retries,
            spending=self._spending,
        )

        async def ask(request: ChatRequest) -> Outcome:
            try:
                return await client.ask(request)
            except CallFailedError as error:
                return error
            finally:
                step()

        async with client:
            for model in sorted({request.model for request in requests}):
                await client.check(model)
            outcomes = await asyncio.gather(*(ask(request) for request in requests))
        return {request.key: outcome for request, outcome in zip(requests, outcomes, strict=True)}
