"""What the ledger of model calls holds: a ticket for each call, and sums over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["sent", "answered", "abandoned-paid-unknown", "abandoned"]
Grouping = Literal["product", "stage", "role", "model", "purpose", "task_type", "corpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One row of the ledger.

    Attributes:
        id: 32 hex digits, unique.
        product: Address of the product that the call is for.
        role: "generator", "judge" or "candidate".
        model: As the request named it.
        purpose: As the request named it, such as "questions".
        task_type: As the request named it; empty where there is none.
        corpus: The same.
        batch: Whether it goes through the batch interface; such a row may stay "sent" from run to run.
        state: "sent": no reply yet; "answered"; "abandoned": surely not charged; "abandoned-paid-unknown":
            it may have been charged though no reply came.
        prompt_bytes: UTF-8 bytes of the prompt.
        prompt_tokens: What the provider counted; before that, and where it counted nothing, an upper estimate.
        cached_tokens: Of the prompt's, read from the provider's cache.
        cache_write_tokens: Of the prompt's, written to it.
        reply_tokens: As prompt_tokens.
        estimated: Whether tokens and dollars are estimates, not the provider's count.
        dollars: At the prices in force; None when they are unknown.
        price_date: Of the price file; empty when the price is unknown.
        time: When the row was written, ISO 8601 in UTC.
    """

    id: str
    product: str
    role: str
    model: str
    purpose: str
    task_type: str
    corpus: str
    batch: bool
    state: State
    prompt_bytes: int
    prompt_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reply_tokens: int
    estimated: bool
    dollars: float | None
    price_date: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A sum over tickets that cost something or may have: all but the abandoned ones.

    Attributes:
        calls: How many.
        num_open: Of them, those without a reply: sent, or given up and perhaps paid.
        num_estimated: Of them, those whose tokens are an estimate.
        num_unpriced: Of them, those whose price is unknown; they are not in `dollars`.
        dollars: Sum of those whose price is known.
    """

    calls: int = 0
    num_open: int = 0
    num_estimated: int = 0
    num_unpriced: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reply_tokens: int = 0
    dollars: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompts and replies together."""
        return self.prompt_tokens + self.reply_tokens
