"""Requests and tokens a minute, learnt from what the endpoint's responses say of them.

Header names and forms as in OpenAI's guide "Rate limits" (durations like 6m0s) and in Anthropic's "Rate
limits" (times in RFC 3339). Other servers send the same names or none; without them nothing is limited.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from longalign_core.chat_client.calls import ChatReply, ChatRequest

REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS = "requests", "tokens", "input-tokens", "output-tokens"
# A byte-level tokenizer rarely needs more than one token for three bytes of text; usage corrects it when it came.
_BYTES_PER_TOKEN = 3
_MINUTE = 60.0
_UNIT_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|d|h|m|s)")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call takes from the limits.

    Attributes:
        input_tokens: Of the prompt, cached ones too: where a provider does not count those, its headers tell.
        output_tokens: Of the reply.
        requests: 1, or 0 for a call that was never sent.
    """

    input_tokens: float
    output_tokens: float
    requests: float = 1.0

    def of(self, name: str) -> float:
        """What it takes from one limit."""
        if name == REQUESTS:
            return self.requests
        if name == INPUT_TOKENS:
            return self.input_tokens
        return self.output_tokens if name == OUTPUT_TOKENS else self.input_tokens + self.output_tokens


def estimated_cost(request: ChatRequest) -> Cost:
    """What a request may take, before it is sent: never less than it does, for usual text."""
    num_bytes = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages)
    return Cost(num_bytes / _BYTES_PER_TOKEN, request.max_tokens)


def actual_cost(reply: ChatReply, estimate: Cost) -> Cost:
    """What an answered call took; what the reply does not tell stays estimated."""
    read = estimate.input_tokens if reply.prompt_tokens is None else reply.prompt_tokens
    written = estimate.output_tokens if reply.reply_tokens is None else reply.reply_tokens
    return Cost(read, written)


@dataclass(frozen=True, slots=True)
class LimitReport:
    """One limit as a response tells it.

    Attributes:
        limit: Most within a minute.
        remaining: Left now; None where it is not told.
        reset_seconds: From now until all of it is there again; None where it is not told.
    """

    limit: float
    remaining: float | None
    reset_seconds: float | None


def reported_limits(headers: Mapping[str, str], wall_time: float) -> dict[str, LimitReport]:
    """The limits that a response's headers tell; values of no sense are taken for absent.

    Args:
        headers: Of the response.
        wall_time: Seconds since 1970, for times of reset.
    """
    lower = {name.lower(): value for name, value in headers.items() if "ratelimit" in name.lower()}
    reports: dict[str, LimitReport] = {}
    for name in (REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS):
        for form in ("x-ratelimit-{part}-{name}", "anthropic-ratelimit-{name}-{part}"):
            limit, remaining, reset = (
                lower.get(form.format(part=part, name=name)) for part in ("limit", "remaining", "reset")
            )
            # A limit of nothing would let no call pass ever; no provider means that.
            if most := _amount(limit):
                reports[name] = LimitReport(most, _amount(remaining), _seconds_until(reset, wall_time))
    return reports


def parse_duration(text: str) -> float | None:
    """Seconds of a duration such as 1s, 6m0s, 120ms or 1h2m3.5s; of a bare number, that many. None for no such text."""
    text = text.strip()
    parts = _DURATION_PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    return _amount(text)


def _seconds_until(text: str | None, wall_time: float) -> float | None:
    if text is None:
        return None
    if (seconds := parse_duration(text)) is not None:
        return seconds
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - wall_time)


def _amount(text: str | None) -> float | None:
    """A finite number that is not negative."""
    if text is None or not re.fullmatch(r"\d+(\.\d+)?", text.strip(), re.ASCII):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


class TokenBucket:
    """One limit: filled steadily up to its capacity, emptied by calls.

    A call may be larger than the bucket; it passes when the bucket is full and leaves a debt.
    """

    def __init__(self, capacity: float, level: float, now: float) -> None:
        """A bucket that holds `level` at time `now` and fills within a minute.

        Args:
            capacity: Most it holds; above 0.
            level: What it holds; below 0 for a debt.
            now: Time, seconds.
        """
        self._capacity = capacity
        self._rate = capacity / _MINUTE
        self._level = min(level, capacity)
        self._filled_at = now

    def level(self, now: float) -> float:
        """What it holds at a time."""
        return min(self._capacity, self._level + self._rate * max(0.0, now - self._filled_at))

    def wait_seconds(self, cost: float, now: float) -> float:
        """Seconds until a call of this cost fits, 0 when it does now; for one that never fits, until it is full."""
        return max(0.0, min(cost, self._capacity) - self.level(now)) / self._rate

    def take(self, amount: float, now: float) -> None:
        """Empty it by an amount; a negative amount gives back."""
        self._level = min(self._capacity, self.level(now) - amount)
        self._filled_at = now

    def follow(self, report: LimitReport, under_way: float, now: float) -> None:
        """Take over what a response told.

        What remains was counted at some moment while the call was under way, so the truth lies between what
        remains (all calls under way were counted) and that minus them (none was). Between the two our own
        count holds, which knows when each was sent.

        Args:
            report: Of the response.
            under_way: What the calls still under way take.
            now: Time, seconds.
        """
        level = self.level(now)
        if report.remaining is not None:
            level = min(max(level, report.remaining - under_way), report.remaining)
        self._capacity, self._rate = report.limit, report.limit / _MINUTE
        used = report.limit - (report.limit if report.remaining is None else report.remaining)
        if report.reset_seconds is not None and report.reset_seconds > _MINUTE and used >= report.limit / 2:
            # Not a limit of a minute but of an hour or a day: it fills as slowly as the reset says.
            self._rate = min(self._rate, used / report.reset_seconds)
        self._level, self._filled_at = min(level, report.limit), now


class RateLimits:
    """All limits of an endpoint together."""

    def __init__(self) -> None:
        """Without limits, until a response tells of some."""
        self._buckets: dict[str, TokenBucket] = {}
        self._under_way: dict[str, float] = dict.fromkeys((REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS), 0.0)

    def wait_seconds(self, cost: Cost, now: float) -> float:
        """Seconds until a call fits into every limit."""
        return max((bucket.wait_seconds(cost.of(name), now) for name, bucket in self._buckets.items()), default=0.0)

    def begin(self, cost: Cost, now: float) -> None:
        """A call is sent."""
        for name in self._under_way:
            self._under_way[name] += cost.of(name)
        for name, bucket in self._buckets.items():
            bucket.take(cost.of(name), now)

    def end(self, estimate: Cost, actual: Cost, reports: Mapping[str, LimitReport], now: float) -> None:
        """A call that was sent came to an end.

        Args:
            estimate: What it was thought to take when it began.
            actual: What it took; the estimate where nobody knows.
            reports: What its response told of the limits.
            now: Time, seconds.
        """
        for name in self._under_way:
            self._under_way[name] -= estimate.of(name)
        for name, bucket in self._buckets.items():
            bucket.take(actual.of(name) - estimate.of(name), now)
        for name, report in reports.items():
            under_way = self._under_way[name]
            if name not in self._buckets:
                level = report.limit if report.remaining is None else report.remaining
                self._buckets[name] = TokenBucket(report.limit, level - under_way, now)
            self._buckets[name].follow(report, under_way, now)
