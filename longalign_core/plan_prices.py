"""What a planned stage will cost: its calls at the prices in force, by ways to send them, against the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.prices import FREE, ModelPrices, PriceList, load_prices
from longalign_core.chat_client.spending import ledger_file
from longalign_core.chat_client.tickets import Spent
from longalign_core.config import Recipe, Runtime
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import split_endpoint
from longalign_core.plan_calls import ASSUMED_OWN_TOKENS
from longalign_core.run_costs import MODES, Calls, Cost, Mode, cost_of


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """What is told of a stage's price.

    Attributes:
        model: Of the role that is paid for; None when there is none, and so nothing to pay.
        role: "generator" or "judge".
        price_file: Where prices come from; None when nothing is paid: a model served here, or none.
        price_date: Of that file.
        seen: Where the model's prices were seen; None when they are unknown.
        calls: How many.
        tokens: Prompts and replies, as assumed.
        own_tokens: Assumed of what a call adds to its document.
        reply_tokens: Assumed of a reply.
        costs: By mode; None when its price is unknown.
        available: Modes that the endpoint offers.
        configured: The mode in which the run would send its calls.
        spent: On this product so far.
        budget_dollars: The cap.
        budget_tokens: The cap.
        warnings: What to mend before the run.
        grounding: The same of the judge that checks the generator's answers in the same stage; None where none does.
            `dollars` and `suffices` count it in, all else is the generator's alone.
    """

    model: str | None
    role: str
    price_file: str | None
    price_date: str | None
    seen: str | None
    calls: int
    tokens: int
    own_tokens: int
    reply_tokens: int
    costs: dict[Mode, Cost | None]
    available: tuple[Mode, ...]
    configured: Mode
    spent: Spent
    budget_dollars: float | None
    budget_tokens: int | None
    warnings: tuple[str, ...] = ()
    grounding: Pricing | None = None

    @property
    def dollars(self) -> float | str:
        """What the run costs in the mode it is set to."""
        dollars = self._dollars
        return "price unknown" if dollars is None else round(dollars, 4)

    @property
    def recommended(self) -> Mode | None:
        """The cheapest mode that the endpoint offers and whose price is known."""
        known = [(cost.dollars, mode) for mode in self.available if (cost := self.costs[mode]) is not None]
        return min(known)[1] if known else None

    @property
    def suffices(self) -> bool | None:
        """Whether the caps hold the run in the mode it is set to; None without caps, or when it cannot be known."""
        fits: list[bool | None] = []
        if self.budget_tokens is not None:
            tokens = sum(one.tokens for one in self._parts)
            fits.append(max(tokens, self.spent.tokens) <= self.budget_tokens)
        if self.budget_dollars is not None:
            dollars = self._dollars
            fits.append(None if dollars is None else max(dollars, self.spent.dollars) <= self.budget_dollars)
        return False if False in fits else None if None in fits or not fits else True

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        costs = {mode: None if cost is None else asdict(cost) for mode, cost in self.costs.items()}
        plain = {name: value for name, value in vars(self).items() if name not in ("costs", "spent", "grounding")}
        return {
            **plain,
            "available": list(self.available),
            "warnings": list(self.warnings),
            "costs": costs,
            "recommended": self.recommended,
            "spent": {"dollars": round(self.spent.dollars, 4), "tokens": self.spent.tokens, "calls": self.spent.calls},
            "suffices": self.suffices,
            "grounding": None if self.grounding is None else self.grounding.as_json(),
        }

    @property
    def _parts(self) -> tuple[Pricing, ...]:
        return (self,) if self.grounding is None else (self, self.grounding)

    @property
    def _dollars(self) -> float | None:
        costs = [one.costs[one.configured] for one in self._parts]
        known = [cost.dollars for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None


def price_calls(
    role: str,
    model: ChatModel | None,
    work: Sequence[Calls],
    runtime: Runtime,
    product: str | None,
    warnings: Sequence[str] = (),
) -> Pricing:
    """Price a role's calls.

    Args:
        role: "generator" or "judge".
        model: The role's; None when the recipe has none.
        work: Its calls.
        runtime: Endpoints, caps and price file.
        product: Address of the product; None while it is not known.
        warnings: To be told beside.

    Raises:
        InputError: The price file is wrong.
    """
    listed: PriceList | None = None
    prices: ModelPrices | None = FREE
    if model is not None and work and not (role not in runtime.endpoints and model.checkpoint is not None):
        listed = load_prices(runtime.prices)
        prices = listed.of(model.model)
    costs: dict[Mode, Cost | None] = {
        mode: None if prices is None else Cost(0.0, 0.0) if prices is FREE else cost_of(work, prices, mode)
        for mode in MODES
    }
    available = ("online",) if listed is None else _available(role, runtime, costs)
    found = [] if model is None or listed is None else _price_warnings(model, listed, runtime)
    return Pricing(
        model=None if model is None else model.model,
        role=role,
        price_file=None if listed is None else listed.name,
        price_date=None if listed is None else listed.date,
        seen=None if prices is None else prices.seen,
        calls=round(sum(calls.num_calls for calls in work)),
        tokens=round(sum(calls.tokens for calls in work)),
        own_tokens=max((calls.own_tokens for calls in work), default=0),
        reply_tokens=max((calls.reply_tokens for calls in work), default=0),
        costs=costs,
        available=available,
        configured="batch" if runtime.generator_calls == "batch" and "batch" in available else available[0],
        spent=spent_so_far(runtime, product),
        budget_dollars=runtime.budget_dollars,
        budget_tokens=runtime.budget_tokens,
        warnings=(*warnings, *found),
    )


def spent_so_far(runtime: Runtime, product: str | None) -> Spent:
    """What the local ledger says was spent on a product; nothing where there is no ledger."""
    file = ledger_file(runtime.scratch)
    if product is None or not file.is_file():
        return Spent()
    with Ledger(file) as ledger:
        return ledger.spent(product)


def instruct_warnings(recipe: Recipe, documents: Path | None) -> list[str]:
    """What to mend before instruct runs: documents that the generator's window does not hold, calls without a price.

    Args:
        recipe: Its generator and its longest document.
        documents: The drawn documents, with their tokens counted; None while they are not there.
    """
    warnings = [found] if (found := _window_warning(recipe, documents)) else []
    wanted, drawn = recipe.instruct.num_conversations, recipe.selection.num_documents
    if documents is not None:
        drawn = pq.read_metadata(documents).num_rows
    if wanted is not None and wanted > drawn:
        warnings.append(
            f"{wanted:,} conversations are wanted of {drawn:,} documents, and a document gives one at most: raise "
            "selection.num_documents, or lower instruct.num_conversations"
        )
    return warnings


def _window_warning(recipe: Recipe, documents: Path | None) -> str | None:
    generator = recipe.instruct.generator
    room = generator.context_tokens - generator.max_tokens - ASSUMED_OWN_TOKENS
    mend = "they will be rejected: use a generator with a larger window, or lower selection.max_tokens"
    left = f"more than the {room:,} tokens that the generator's window leaves"
    if documents is None:
        longest = recipe.selection.max_tokens
        return f"documents of up to {longest:,} tokens are drawn, {left}; {mend}" if longest > room else None
    counted = pq.read_table(documents, columns=["num_tokens"])["num_tokens"].to_pylist()
    num_over = sum(number is not None and number > room for number in counted)
    return f"{num_over:,} of {len(counted):,} documents have {left}; {mend}" if num_over else None


def _price_warnings(model: ChatModel, listed: PriceList, runtime: Runtime) -> list[str]:
    prices = listed.of(model.model)
    if prices is None and runtime.budget_dollars is not None:
        return [f"the run will refuse to start: dollars are capped, but {listed.name} does not have {model.model!r}"]
    if prices is None or prices.context_tokens is None or prices.context_tokens >= model.context_tokens:
        return []
    return [
        f"the recipe gives {model.model} a window of {model.context_tokens:,} tokens, {listed.name} one of "
        f"{prices.context_tokens:,}; lower its context_tokens"
    ]


def _available(role: str, runtime: Runtime, costs: Mapping[Mode, Cost | None]) -> tuple[Mode, ...]:
    """What an endpoint offers, its way of calls one by one first: a provider's caches, and its batches."""
    batch: tuple[Mode, ...] = ("batch",) if role == "generator" else ()
    if role not in runtime.endpoints:
        return ("online", "cached", *batch)
    api, _ = split_endpoint(runtime.endpoints[role], role)
    if api == "compatible":
        return ("online",)
    # A provider's interface caches by itself or is told to; a model without a price for it has no cache.
    return ("online" if costs["cached"] is None else "cached", *batch)
