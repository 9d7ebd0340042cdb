"""Limits of requests and tokens a minute: how responses tell them, and the buckets that keep to them."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from longalign_core.chat_client.calls import ChatReply
from longalign_core.chat_client.rate_limits import (
    Cost,
    LimitReport,
    RateLimits,
    TokenBucket,
    actual_cost,
    estimated_cost,
    parse_duration,
    reported_limits,
)
from tests.chat_setup import request_of

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m3.5s", 3723.5),
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("1d", 86400.0),
        ("12", 12.0),
        ("", None),
        ("soon", None),
        ("-1s", None),
        ("1s later", None),
        ("6m 0s", None),
        ("nan", None),
    ],
)
def test_duration_of_a_header_in_seconds_or_nothing(text, seconds):
    assert parse_duration(text) == (seconds if seconds is None else pytest.approx(seconds))


def test_limits_of_openai_are_read_whatever_the_case_of_names():
    headers = {
        "X-RateLimit-Limit-Requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
        "content-type": "application/json",
    }
    assert reported_limits(headers, NOON) == {
        "requests": LimitReport(60, 59, 1.0),
        "tokens": LimitReport(150000, 149984, 360.0),
    }


def test_limits_of_anthropic_are_read_with_times_of_reset():
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-03-01T12:00:01Z",
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2026-03-01T13:00:30+01:00",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "8000",
        "anthropic-ratelimit-output-tokens-reset": "2026-03-01T11:59:59Z",
    }
    assert reported_limits(headers, NOON) == {
        "requests": LimitReport(50, 49, 1.0),
        "input-tokens": LimitReport(40000, 0, 30.0),
        "output-tokens": LimitReport(8000, 8000, 0.0),
    }


@pytest.mark.parametrize("limit", ["", "many", "-5", "0", "nan", "inf", "1e5", "9" * 400, "٣"])
def test_limits_of_no_sense_are_ignored(limit):
    assert reported_limits({"x-ratelimit-limit-tokens": limit, "x-ratelimit-remaining-tokens": "5"}, NOON) == {}


def test_remaining_and_reset_of_no_sense_are_ignored_and_the_limit_counts():
    headers = {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "-1",
        "x-ratelimit-reset-tokens": "tomorrow",
    }
    assert reported_limits(headers, NOON) == {"tokens": LimitReport(100, None, None)}


def test_estimate_covers_the_prompt_by_bytes_and_the_longest_reply():
    cost = estimated_cost(request_of("三个字" + "a" * 21, max_tokens=7))
    assert (cost.of("input-tokens"), cost.of("output-tokens"), cost.of("tokens")) == (10, 7, 17)
    assert cost.of("requests") == 1


def test_actual_cost_is_what_the_reply_tells_and_the_estimate_elsewhere():
    estimate = Cost(100, 50)
    told = ChatReply(text="", finish_reason="", model="", prompt_tokens=80, reply_tokens=None, stored=False)
    assert actual_cost(told, estimate) == Cost(80, 50)


@pytest.mark.parametrize("seed", range(20))
def test_bucket_never_lets_more_pass_than_its_capacity_and_what_flowed_in(seed):
    """Over any stretch of time no more passes than one full bucket and the refill of that stretch."""
    draw = random.Random(seed)
    capacity, now = draw.uniform(100, 10_000), 0.0
    bucket = TokenBucket(capacity, capacity, now)
    passed: list[tuple[float, float]] = []
    for _ in range(200):
        cost = draw.uniform(1, capacity)
        now += draw.choice([0.0, draw.expovariate(0.5)])
        wait = bucket.wait_seconds(cost, now)
        now += wait
        assert bucket.wait_seconds(cost, now) == pytest.approx(0, abs=1e-6)
        if wait > 0.01:
            assert bucket.wait_seconds(cost, now - 0.01) > 0  # It does not wait longer than needed.
        bucket.take(cost, now)
        passed.append((now, cost))
    for start in range(len(passed)):
        total = 0.0
        for moment, cost in passed[start:]:
            total += cost
            assert total <= capacity + capacity / 60 * (moment - passed[start][0]) + 1e-6


def test_bucket_smaller_than_a_call_lets_it_pass_when_full_and_then_pays_off_the_debt():
    bucket = TokenBucket(60, 60, 0.0)
    assert bucket.wait_seconds(150, 0.0) == 0
    bucket.take(150, 0.0)
    assert bucket.level(0.0) == -90
    assert bucket.wait_seconds(150, 0.0) == 150  # Until it is full, not for ever.
    assert bucket.wait_seconds(10, 0.0) == 100


@pytest.mark.parametrize(
    ("own", "remaining", "under_way", "expected"),
    [
        (500, 100, 0, 100),  # Others use the same key: less is left than we know of.
        (0, 900, 100, 800),  # More is left than we know of, and what is under way may not be counted yet.
        (850, 900, 100, 850),  # Our own count is possible, so it stays.
        (0, 100, 300, 0),  # What is under way was counted already, as far as we can tell.
    ],
)
def test_bucket_follows_what_remains_as_far_as_it_must_be_so(own, remaining, under_way, expected):
    bucket = TokenBucket(1000, own, 0.0)
    bucket.follow(LimitReport(1000, remaining, None), under_way, 0.0)
    assert bucket.level(0.0) == expected


def test_bucket_of_a_limit_that_takes_a_day_fills_as_slowly():
    bucket = TokenBucket(14400, 0, 0.0)
    bucket.follow(LimitReport(14400, 0, 86400.0), 0, 0.0)
    assert bucket.wait_seconds(1, 0.0) == pytest.approx(6.0)


def test_bucket_told_a_long_reset_after_little_use_still_fills_within_a_minute():
    bucket = TokenBucket(150000, 149984, 0.0)
    bucket.follow(LimitReport(150000, 149984, 360.0), 0, 0.0)
    assert bucket.level(0.01) == 150000


def test_limits_learnt_from_a_first_reply_count_calls_that_were_under_way_then():
    limits = RateLimits()
    cost = Cost(100, 20)
    for _ in range(3):
        assert limits.wait_seconds(cost, 0.0) == 0
        limits.begin(cost, 0.0)
    limits.end(cost, Cost(80, 10), {"tokens": LimitReport(600, 400, None)}, 0.0)
    # 400 remain, 240 of them are spoken for by two calls under way; 160 are left at 10 a second.
    assert limits.wait_seconds(Cost(160, 0), 0.0) == 0
    assert limits.wait_seconds(Cost(170, 0), 0.0) == pytest.approx(1.0)


def test_limits_give_back_what_a_call_was_overestimated_by():
    limits = RateLimits()
    limits.begin(Cost(0, 0), 0.0)
    limits.end(Cost(0, 0), Cost(0, 0), {"output-tokens": LimitReport(600, 600, None)}, 0.0)
    limits.begin(Cost(0, 600), 0.0)
    assert limits.wait_seconds(Cost(0, 300), 0.0) == pytest.approx(30)
    limits.end(Cost(0, 600), Cost(0, 100), {}, 0.0)
    assert limits.wait_seconds(Cost(0, 300), 0.0) == 0


def test_limits_the_tightest_one_decides():
    limits = RateLimits()
    reports = {"requests": LimitReport(60, 0, None), "tokens": LimitReport(6000, 0, None)}
    limits.begin(Cost(0, 0), 0.0)
    limits.end(Cost(0, 0), Cost(0, 0), reports, 0.0)
    assert limits.wait_seconds(Cost(50, 0), 0.0) == pytest.approx(1.0)
    assert limits.wait_seconds(Cost(500, 0), 0.0) == pytest.approx(5.0)
