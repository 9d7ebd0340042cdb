"""A plan and what was spent, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from longalign_core.execution import describe

_MODES = {
    "online": "online without a cache",
    "cached": "online with the provider's cache",
    "batch": "batch",
    "batch_cached": "batch with a cache, at best",
}


def plan_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as a table for people."""
    table = Table(title="plan", title_justify="left", show_lines=False)
    for heading in ("stage", "address, or what it waits for", "state", "basis"):
        table.add_column(heading, overflow="fold", min_width=28 if heading.startswith("address") else 5)
    table.add_column("figures", overflow="fold", ratio=1)
    for row in rows:
        where = row["address"] or f"waits for: {row['waits_for']}"
        figures = describe(row["figures"])
        if row["gpu_hours"] is not None:
            figures = f"{figures}; GPU hours {row['gpu_hours']}"
        if row["dollars"] is not None:
            figures = f"{figures}; {dollars_in_words(row)}"
        figures = figures.removeprefix("; ")
        state = "done" if row["done"] else "to do"
        table.add_row(f"{row['stage']} {row['label']}".strip(), where, state, row["basis"], figures)
    return table


def dollars_in_words(row: Mapping[str, Any]) -> str:
    """What a paid stage costs, in one short phrase."""
    if isinstance(row["dollars"], str):
        return row["dollars"]
    if row["done"]:
        return f"cost ${row['dollars']:,.2f}"
    pricing = row["pricing"]
    if not _paid(pricing):
        return "$0.00, served here" if pricing["calls"] else "$0.00, no paid calls"
    return f"about ${row['dollars']:,.2f}"


def price_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be known of the prices of stages that are still to be paid, a line each."""
    lines = []
    for row in rows:
        pricing = row["pricing"]
        if pricing is None:
            continue
        name = f"{row['stage']} {row['label']}".strip()
        lines += [f"{name}: {line}" for line in _price_lines(pricing)]
        warnings = dict.fromkeys(warning for one in _parts(pricing) for warning in one["warnings"])
        lines += [f"{name}: warning: {warning}" for warning in warnings]
    return lines


def _parts(pricing: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A stage's pricing, and that of the judge who works in the same stage."""
    return [pricing] if pricing["grounding"] is None else [pricing, pricing["grounding"]]


def _paid(pricing: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those whose calls are not free."""
    return [one for one in _parts(pricing) if one["price_file"] is not None and one["calls"]]


def _price_lines(pricing: Mapping[str, Any]) -> list[str]:
    paid = _paid(pricing)
    lines = [line for one in paid for line in _cost_lines(one)]
    return [*lines, _budget_line(pricing)] if any(one["seen"] is not None for one in paid) else lines


def _cost_lines(pricing: Mapping[str, Any]) -> list[str]:
    if pricing["seen"] is None:
        return [
            f"price unknown: {pricing['price_file']} of {pricing['price_date']} does not have {pricing['model']!r} "
            "under exactly this name; add it to your price file, or to a copy of the package's "
            "longalign_core/chat_client/prices.yaml, and name that file in LONGALIGN_PRICES"
        ]
    lines = [
        f"{pricing['calls']:,} {pricing['role']} calls of {pricing['model']}, {pricing['tokens']:,} tokens, assuming "
        f"{pricing['own_tokens']} tokens of request and {pricing['reply_tokens']} of reply a call; prices of "
        f"{pricing['price_date']} ({pricing['price_file']})"
    ]
    for mode, words in _MODES.items():
        cost = pricing["costs"][mode]
        marks = [
            mark
            for mark, holds in (
                ("as set up", mode == pricing["configured"]),
                ("recommended", mode == pricing["recommended"]),
                ("not offered by this endpoint", mode not in pricing["available"]),
            )
            if holds
        ]
        price = "price unknown" if cost is None else f"${cost['dollars']:,.2f}, at most ${cost['at_most']:,.2f}"
        lines.append(f"  {words}: {price}" + (f" ({', '.join(marks)})" if marks else ""))
    return lines


def _budget_line(pricing: Mapping[str, Any]) -> str:
    spent = pricing["spent"]
    caps = [
        words
        for words, cap in (
            (_dollars_of_cap(pricing["budget_dollars"] or 0.0), pricing["budget_dollars"]),
            (f"{pricing['budget_tokens'] or 0:,} tokens", pricing["budget_tokens"]),
        )
        if cap is not None
    ]
    fits = {True: "suffices", False: "does not suffice", None: "may or may not suffice"}[pricing["suffices"]]
    budget = f"the budget of {' and '.join(caps)} {fits}" if caps else "no budget is set"
    return f"  spent so far ${spent['dollars']:,.2f} on {spent['calls']:,} calls; {budget}"


def _dollars_of_cap(cap: float) -> str:
    return f"${cap:,.2f}" if round(cap, 2) == cap else f"${cap:g}"  # a cap is never rounded: $0.004 is no $0.00


def spending_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """What was spent by one grouping; `rows` as `spending_rows` gives them."""
    table = Table(title=title, title_justify="left")
    table.add_column(title.removeprefix("by ").partition(" ")[0], overflow="fold")
    for heading in ("dollars", "calls", "prompt tokens", "of them cached", "reply tokens", "open", "by estimate"):
        table.add_column(heading, justify="right")
    if any("artifact" in row for row in rows):
        table.add_column("artifact")
    for row in rows:
        dollars = "unknown" if row["dollars"] is None else f"{row['dollars']:,.4f}"
        more = (
            f" + {row['num_unpriced']} calls without a price"
            if row["num_unpriced"] and row["dollars"] is not None
            else ""
        )
        numbers = ("calls", "prompt_tokens", "cached_tokens", "reply_tokens", "num_open", "num_estimated")
        last = [row["artifact"]] if "artifact" in row else []
        table.add_row(row["group"] or "-", dollars + more, *(f"{row[name]:,}" for name in numbers), *last)
    return table
