"""What every provider's interface is to the client: one request, one reply, and errors of one kind.

Each interface is a module of its own (`openai_chat`, `openai_responses`, `anthropic_messages`) with
the same three names: `body_of(request, endpoint)`, `reply_of(body, asked_model)`, and its wire.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

from longalign_core.chat_client.calls import ChatReply, ChatRequest, Endpoint


class MalformedReplyError(ValueError):
    """The endpoint answered with status 200 but not with a reply."""


class ConnectionFailedError(Exception):
    """No connection, or one that broke before a whole reply came."""


class HttpError(Exception):
    """The endpoint answered with an error.

    Attributes:
        status: HTTP status.
        headers: Of the response.
        content: Its body.
    """

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        super().__init__(status, headers, content)
        self.status = status
        self.headers = headers
        self.content = content


@dataclass(frozen=True, slots=True)
class Arrival:
    """A reply with the response's headers, which tell of rate limits."""

    reply: ChatReply
    headers: Mapping[str, str] = field(default_factory=dict)


class Wire(Protocol):
    """The connections to one endpoint: no retries, no memory. The key is read from the environment at every request.

    All methods raise HttpError, ConnectionFailedError, TimeoutError or MalformedReplyError.
    """

    async def complete(self, request: ChatRequest) -> Arrival:
        """Ask for one reply."""

    async def model_named(self, model: str) -> str:
        """The id under which the endpoint describes a model."""

    async def list_models(self) -> frozenset[str]:
        """Ids of the models that the endpoint lists."""

    async def close(self) -> None:
        """Close the connections."""


def open_wire(endpoint: Endpoint, timeout_seconds: float) -> Wire:
    """The wire that speaks an endpoint's interface; nothing is sent yet."""
    if endpoint.api in ("compatible", "openai"):
        from longalign_core.chat_client.openai_chat import OpenAIChatWire

        return OpenAIChatWire(endpoint, timeout_seconds)
    raise NotImplementedError(endpoint.api)


@contextmanager
def sdk_errors(sdk: ModuleType) -> Iterator[None]:
    """Turn the errors of a provider's SDK into ours. Both SDKs name theirs alike."""
    try:
        yield
    except sdk.APIStatusError as error:
        raise HttpError(error.response.status_code, dict(error.response.headers), error.response.content) from None
    except sdk.APITimeoutError:
        raise TimeoutError from None
    except sdk.APIConnectionError as error:
        raise ConnectionFailedError(type(error.__cause__ or error).__name__) from None
    except sdk.APIError as error:
        raise MalformedReplyError(type(error).__name__) from None


def json_object(content: bytes) -> dict[str, Any]:
    """The JSON object of a response's body. The SDKs take an HTML page or half a JSON text for a reply; we do not.

    Raises:
        MalformedReplyError: It is none.
    """
    try:
        body = json.loads(content)
    except ValueError:
        raise MalformedReplyError("not JSON") from None
    if not isinstance(body, dict):
        raise MalformedReplyError("not a JSON object")
    return body


def token_count(usage: object, name: str) -> int | None:
    """A number of tokens in a usage report; None where it is not there."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
