"""What a failed model call means: worth another try, the end of this call, or the end of all calls."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from longalign_core.chat_client.calls import Endpoint
from longalign_core.chat_client.wire import ConnectionFailedError, HttpError

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
# A server that asks for more is out of its daily quota, not busy: better to stop and be started again.
LONGEST_RETRY_AFTER_SECONDS = 600.0
# Too many requests, unavailable, and what Anthropic answers when it is overloaded.
_OVERLOAD_STATUSES = frozenset({429, 503, 529})
# The SDKs' HTTP library names so a connection that never came about: nothing was sent.
_NEVER_CONNECTED = frozenset({"ConnectError"})
_RETRIED_STATUSES = frozenset({408, 409, 429})
_DETAIL_CHARACTERS = 200


class Clock(Protocol):
    """The time, and waiting for it; tests put their own in its place."""

    def wall_time(self) -> float:
        """Seconds since 1970."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's own time."""

    def wall_time(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class FailureKind(Enum):
    """How far a failure reaches."""

    PASSING = auto()
    CALL = auto()
    ENDPOINT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed try.

    Attributes:
        kind: How far it reaches.
        reason: A short fixed phrase.
        detail: What was seen, for people; holds no key.
        retry_after_seconds: Wait that the server asked for; None when it did not.
        headers: Of the response; empty when there was none.
        overload: Whether it is a sign that fewer calls should be under way.
        maybe_charged: Whether the endpoint may have worked on the call, and charge for it, all the same.
    """

    kind: FailureKind
    reason: str
    detail: str
    retry_after_seconds: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    overload: bool = False
    maybe_charged: bool = False


UNREACHABLE = "connection failed"
KEY_REFUSED = "key refused"
UNKNOWN_MODEL = "unknown model"
QUOTA_USED_UP = "quota used up"
TOO_LONG = "prompt too long"
FILTERED = "content filter"
RATE_LIMITED = "rate limited"
SERVER_FAILED = "server error"
TIMED_OUT = "timed out"
MALFORMED = "malformed reply"
REFUSED_REQUEST = "request refused"
REFUSED_SETTING = "setting refused"
OVERLOADED = "overloaded"
# What error bodies say beyond the status, in lower case. OpenAI's codes and words as its error bodies are quoted in
# public issues (its documentation gives no list), Anthropic's types as in types/shared/error_type.py of its SDK and
# its words as in issues of anthropics/claude-code; a phrase counts only where no code or type tells as much.
_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_error"})
_NO_CREDIT_PHRASE = "credit balance is too low"
_NO_KEY = frozenset({"authentication_error", "permission_error"})
_NO_MODEL = frozenset({"not_found_error", "model_not_found"})
_TOO_LONG = frozenset({"context_length_exceeded", "request_too_large"})
_TOO_LONG_PHRASES = (
    "prompt is too long",
    "context length",
    "context_length",
    "context limit",
    "context size",
    # With a 429: one request above the limit of a minute, which it will be in the next minute too.
    "request too large for",
)
_FILTERED = frozenset({"content_filter", "content_policy_violation", "misalignment_policy_violation", "bio_policy"})
_FILTERED_PHRASES = ("content_filter", "content_policy", "content filtering policy", "violating our usage policy")
# What no call with this model may say: newer ones take no temperature, for one.
_NO_SETTING = frozenset({"unsupported_parameter", "unsupported_value"})
_NO_SETTING_PHRASE = "is deprecated for this model"


def describe_failure(error: Exception, *, key: str, now: float) -> Failure:
    """Say what an error of one try means.

    Args:
        error: As a wire raised it.
        key: The API key that was sent; taken out of the detail should a server have echoed it.
        now: Wall clock time, seconds since 1970, for a Retry-After that is a date.
    """
    if isinstance(error, TimeoutError):
        return Failure(
            kind=FailureKind.PASSING,
            reason=TIMED_OUT,
            detail="no whole reply within the time allowed",
            overload=True,
            maybe_charged=True,
        )
    if isinstance(error, ConnectionFailedError):
        # The cause's own words may quote a header, so only its class is told.
        maybe_charged = str(error) not in _NEVER_CONNECTED
        return Failure(kind=FailureKind.PASSING, reason=UNREACHABLE, detail=str(error), maybe_charged=maybe_charged)
    if isinstance(error, HttpError):
        wait = asked_wait_seconds(error.headers, now)
        names, message = _error_fields(error.content)
        detail = f"HTTP {error.status} {' '.join(names[:1])} {message}".replace(key, "***")[:_DETAIL_CHARACTERS].strip()
        kind, reason = _meaning(error.status, frozenset(name.lower() for name in names), message.lower())
        if wait is not None and wait > LONGEST_RETRY_AFTER_SECONDS and kind is FailureKind.PASSING:
            kind = FailureKind.ENDPOINT
        return Failure(
            kind=kind,
            reason=reason,
            detail=detail,
            retry_after_seconds=wait,
            headers=error.headers,
            overload=error.status in _OVERLOAD_STATUSES,
        )
    return Failure(kind=FailureKind.PASSING, reason=MALFORMED, detail=str(error), maybe_charged=True)


def stop_message(endpoint: Endpoint, failure: Failure, model: str) -> str:
    """One sentence on why every further call would fail, and what to change.

    Without the server's own words, which may quote a prompt, but where they alone name the setting to change.
    """
    where = f"the {endpoint.role} endpoint {endpoint.place}"
    kept = "calls answered so far are kept"
    if failure.reason == UNREACHABLE:
        return f"{where} cannot be reached ({failure.detail}); start the server or correct the URL; {kept}"
    if failure.reason == KEY_REFUSED:
        variable = next((name for name in endpoint.key_variables if os.environ.get(name)), None)
        sent = f"the key in {variable}" if variable else "calls without a key"
        return f"{where} refuses {sent}; set {endpoint.key_variables[0]} to a key that is valid there; {kept}"
    if failure.reason == UNKNOWN_MODEL:
        return f"{where} does not know model {model!r} (HTTP 404); {_what_to_correct(endpoint)}; {kept}"
    if failure.reason == REFUSED_SETTING:
        return (
            f"{where} refuses a setting for model {model!r} ({failure.detail}); change it in the recipe "
            f"(temperature: null leaves that out); {kept}"
        )
    if failure.reason == QUOTA_USED_UP:
        return f"{where} reports that the account's quota is used up; add credit, then run again; {kept}"
    if (failure.retry_after_seconds or 0) > LONGEST_RETRY_AFTER_SECONDS:
        return f"{where} asks to wait {failure.retry_after_seconds:.0f} seconds; run again after that; {kept}"
    return f"{where} fails call after call, the last one with: {failure.reason}; mend it, then run again; {kept}"


def _what_to_correct(endpoint: Endpoint) -> str:
    if endpoint.base_url is None:
        return "correct the model's name"
    base, _, tail = endpoint.base_url.rstrip("/").rpartition("/v1/")
    if base:
        return f"the URL goes on behind /v1: leave out /{tail}, or correct the model's name"
    if endpoint.api == "anthropic":
        return "correct the model's name or the URL"
    if endpoint.base_url.rstrip("/").endswith("/v1"):
        return "correct the model's name, or the URL, which usually ends in /v1"
    return "the URL, which usually ends in /v1, does not: add that, or correct the model's name"


def asked_wait_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a response's headers ask to wait: in milliseconds, where a provider is so exact, or Retry-After."""
    lower = {name.lower(): value for name, value in headers.items()}
    milliseconds = retry_after_seconds(lower.get("retry-after-ms"), now)
    return retry_after_seconds(lower.get("retry-after"), now) if milliseconds is None else milliseconds / 1000


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date. None when there is neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except ValueError:
        return None


def backoff_seconds(attempt: int, retry_after: float | None, draw: random.Random) -> float:
    """Wait before the next try: exponential with full jitter, after what the server asked for.

    Args:
        attempt: Failed tries before this one, from 0.
        retry_after: Seconds the server asked for; None when it did not.
        draw: Source of the jitter.
    """
    jitter = draw.uniform(0.0, min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2**attempt))
    if retry_after is None:
        return jitter
    return retry_after + min(jitter, FIRST_BACKOFF_SECONDS)


def _meaning(status: int, names: frozenset[str], message: str) -> tuple[FailureKind, str]:
    """How far an error reaches, and why; what its body names goes before its status, which gateways change."""
    if status == 402 or names & _NO_CREDIT or _NO_CREDIT_PHRASE in message:
        return FailureKind.ENDPOINT, QUOTA_USED_UP
    if status == 404 or names & _NO_MODEL:
        return FailureKind.ENDPOINT, UNKNOWN_MODEL
    if status in (401, 403) or names & _NO_KEY:
        return FailureKind.ENDPOINT, KEY_REFUSED
    if status == 529 or "overloaded_error" in names:
        return FailureKind.PASSING, OVERLOADED
    if status == 413 or names & _TOO_LONG or (status < 500 and any(phrase in message for phrase in _TOO_LONG_PHRASES)):
        return FailureKind.CALL, TOO_LONG
    if status == 429 or "rate_limit_error" in names:
        return FailureKind.PASSING, RATE_LIMITED
    if status in _RETRIED_STATUSES or status >= 500:
        return FailureKind.PASSING, SERVER_FAILED
    if names & _FILTERED or any(phrase in message for phrase in _FILTERED_PHRASES):
        return FailureKind.CALL, FILTERED
    if names & _NO_SETTING or _NO_SETTING_PHRASE in message:
        return FailureKind.ENDPOINT, REFUSED_SETTING
    return FailureKind.CALL, REFUSED_REQUEST


def _error_fields(content: bytes) -> tuple[list[str], str]:
    """Code and type (those that are there), and message of an error body; empty where it is not of the usual form."""
    try:
        body = json.loads(content)
    except ValueError:
        return [], ""
    error = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return [], ""
    names = [str(error[name]) for name in ("code", "type") if error.get(name)]
    return names, str(error.get("message") or "")
