"""What calls over shared texts cost, by the way in which they are sent. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from longalign_core.chat_client.prices import ModelPrices

Mode = Literal["online", "cached", "batch", "batch_cached"]
MODES: tuple[Mode, ...] = ("online", "cached", "batch", "batch_cached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Groups of calls, each group over a text of its own that all its calls begin with.

    Attributes:
        num_groups: How many texts.
        calls_per_group: Calls over each.
        shared_tokens: Of one text, on average.
        own_tokens: Of what a call adds to the text.
        reply_tokens: Of a reply, as assumed.
        most_reply_tokens: Of the longest reply that is allowed.
    """

    num_groups: float
    calls_per_group: int
    shared_tokens: int
    own_tokens: int
    reply_tokens: int
    most_reply_tokens: int

    @property
    def num_calls(self) -> float:
        """Calls of all groups."""
        return self.num_groups * self.calls_per_group

    @property
    def tokens(self) -> float:
        """Prompts and replies, as assumed."""
        return self.num_calls * (self.shared_tokens + self.own_tokens + self.reply_tokens)


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars.

    Attributes:
        dollars: With replies as long as assumed.
        at_most: With the longest replies that are allowed.
    """

    dollars: float
    at_most: float


def cost_of(work: Sequence[Calls], prices: ModelPrices, mode: Mode) -> Cost | None:
    """What work costs when it is sent in one way; None when the price of that is unknown.

    Args:
        work: The calls.
        prices: Of the model.
        mode: "online": every call reads its whole text at the price of input. "cached": the first call of a group
            writes its text to the provider's cache, the others read it there. "batch": every call reads its whole
            text at the batch price. "batch_cached": as "cached" at batch prices, if no call comes too late for
            the cache: providers promise nothing here, so this is the least it may be.
    """
    batch = mode.startswith("batch")
    if (batch and not prices.has_batch) or (mode == "cached" and prices.cached_input is None):
        return None
    if mode == "batch_cached" and prices.batch_cached_input is None:
        return None
    cached = mode.endswith("cached")
    return Cost(
        sum(_group(calls, calls.reply_tokens, prices, batch, cached) * calls.num_groups for calls in work),
        sum(_group(calls, calls.most_reply_tokens, prices, batch, cached) * calls.num_groups for calls in work),
    )


def _group(calls: Calls, reply_tokens: int, prices: ModelPrices, batch: bool, cached: bool) -> float:
    prompt, text = calls.shared_tokens + calls.own_tokens, calls.shared_tokens
    if not cached:
        return calls.calls_per_group * prices.dollars(prompt, reply_tokens, batch=batch)
    first = prices.dollars(prompt, reply_tokens, written_tokens=text, batch=batch)
    return first + (calls.calls_per_group - 1) * prices.dollars(prompt, reply_tokens, cached_tokens=text, batch=batch)
