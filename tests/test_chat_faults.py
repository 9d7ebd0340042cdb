"""Waits between tries."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from longalign_core.chat_client.faults import backoff_seconds, retry_after_seconds

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
