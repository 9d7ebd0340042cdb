"""What every provider's interface is to the client: one request, one reply, and errors of one kind.

Each interface is a module of its own (`openai_chat`, `openai_responses`, `anthropic_messages`) with
the same three names: `body_of(request, endpoint)`, `reply_of(body, asked_model)`, and its wire. Another
one needs such a module, its line in `open_wire`, and its name among `Api` and `PROVIDERS`.

Where and with which key is asked comes from the endpoint alone. What the SDKs would read from the
environment by themselves is left aside: OPENAI_BASE_URL, ANTHROPIC_BASE_URL, ANTHROPIC_AUTH_TOKEN, their
profiles, and the headers of OPENAI_CUSTOM_HEADERS and ANTHROPIC_CUSTOM_HEADERS, which would take the
place of our key, or carry one server's secrets to another. Only OPENAI_ORG_ID and OPENAI_PROJECT_ID hold,
and only for OpenAI: they say who pays.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2
import orjson

from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest, Endpoint

UNSENDABLE = "prompt is no text"
_KEY_HEADERS = frozenset({"authorization", "x-api-key"})


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
    if endpoint.api == "openai-responses":
        from longalign_core.chat_client.openai_responses import OpenAIResponsesWire

        return OpenAIResponsesWire(endpoint, timeout_seconds)
    from longalign_core.chat_client.anthropic_messages import AnthropicMessagesWire

    return AnthropicMessagesWire(endpoint, timeout_seconds)


def http_options(url: str, key_headers: Callable[[], Mapping[str, str]], others: str) -> dict[str, Any]:
    """Options of the HTTP client of a provider's SDK, such that only our key leaves, and only for its own server.

    Args:
        url: Base URL of the endpoint.
        key_headers: Headers with the key as it is now; called at every request.
        others: Variable of the environment from which the SDK takes further headers, one `Name: value` a line.
    """

    async def send_only_ours(request: httpx2.Request) -> None:
        for name in _KEY_HEADERS | _header_names(others):
            request.headers.pop(name, None)
        own = type(request.url)(url)
        if (request.url.scheme, request.url.netloc) == (own.scheme, own.netloc):  # Not so after a redirect elsewhere.
            request.headers.update(key_headers())

    options: dict[str, Any] = {"event_hooks": {"request": [send_only_ours]}}
    if is_local(url):
        # A proxy from the environment must not stand between us and a server on this machine; one of the SDKs reads
        # that environment even with trust_env off, but lets mounts win.
        options |= {"trust_env": False, "mounts": {"http://": None, "https://": None, "all://": None}}
    return options


def is_local(url: str) -> bool:
    """Whether a URL is of this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _header_names(variable: str) -> frozenset[str]:
    lines = os.environ.get(variable, "").split("\n")
    return frozenset(line.partition(":")[0].strip().lower() for line in lines if ":" in line)


def refuse_unsendable(request: ChatRequest) -> None:
    """Make sure that a request can be written as UTF-8, which is all that JSON over HTTP can carry.

    Raises:
        CallFailedError: It holds half a surrogate pair, as a text decoded with errors let through does.
    """
    for number, message in enumerate(request.messages, start=1):
        try:
            message.content.encode("utf-8")
        except UnicodeEncodeError as error:
            detail = (
                f"message {number} holds half a surrogate pair (U+{ord(error.object[error.start]):04X}) at character "
                f"{error.start}, which no request can carry; take it out of the document"
            )
            raise CallFailedError(UNSENDABLE, detail, passing=False) from None


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


def json_content(body: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an SDK's `post` for a body and the reply as it comes over the wire.

    The SDKs' typed methods walk through every body and write it with the `json` module, in which a document of
    32k tokens takes as long as everything else about a call together; while that runs no other call moves.
    """
    return {"content": orjson.dumps(body), "cast_to": httpx2.Response}


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
