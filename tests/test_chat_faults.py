"""Waits between tries, and what a failure says beyond its own call."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from longalign_core.chat_client.faults import asked_wait_seconds, backoff_seconds, describe_failure, retry_after_seconds
from longalign_core.chat_client.wire import ConnectionFailedError, HttpError, MalformedReplyError

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("7", 7.0),
        ("0.25", 0.25),
        ("-3", 0.0),
        (format_datetime(NOON.replace(second=30), usegmt=True), 30.0),
        (format_datetime(NOON.replace(hour=11), usegmt=True), 0.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_header_gives_seconds_from_now(header, expected):
    assert retry_after_seconds(header, NOON.timestamp()) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"Retry-After-Ms": "soon", "Retry-After": "1"}, 1.0),
        ({"retry-after": "2"}, 2.0),
        ({}, None),
    ],
)
def test_wait_asked_for_in_milliseconds_counts_before_seconds(headers, expected):
    assert asked_wait_seconds(headers, NOON.timestamp()) == expected


@pytest.mark.parametrize(
    ("error", "overload", "maybe_charged"),
    [
        (HttpError(429, {}, b""), True, False),
        (HttpError(503, {}, b""), True, False),
        (HttpError(529, {}, b""), True, False),
        (HttpError(500, {}, b""), False, False),
        (HttpError(400, {}, b""), False, False),
        (TimeoutError(), True, True),
        (MalformedReplyError("half"), False, True),
        (ConnectionFailedError("ReadError"), False, True),
        (ConnectionFailedError("ConnectError"), False, False),
    ],
    ids=lambda value: f"{type(value).__name__} {value}" if isinstance(value, Exception) else "",
)
def test_failure_tells_of_overload_and_of_charges(error, overload, maybe_charged):
    failure = describe_failure(error, key="k", now=0.0)
    assert (failure.overload, failure.maybe_charged) == (overload, maybe_charged)


def test_backoff_without_retry_after_is_spread_from_nothing_to_a_doubling_limit():
    draw = random.Random(0)
    for attempt, limit in [(0, 1.0), (1, 2.0), (3, 8.0), (30, 60.0)]:
        waits = [backoff_seconds(attempt, None, draw) for _ in range(2000)]
        assert 0 <= min(waits) < 0.05 * limit
        assert 0.95 * limit < max(waits) <= limit


def test_backoff_with_retry_after_never_waits_less_than_asked():
    draw = random.Random(0)
    waits = [backoff_seconds(attempt % 10, 5.0, draw) for attempt in range(1000)]
    assert min(waits) >= 5.0
    assert max(waits) <= 6.0
