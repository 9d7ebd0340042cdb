"""What was spent, told from the ledger: for a stage's counts, for a file beside its product, for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.tickets import Grouping, Spent

GROUPINGS: tuple[Grouping, ...] = ("product", "stage", "role", "model", "task_type", "corpus", "purpose")


def ledger_file(scratch: Path) -> Path:
    """Where the ledger of a scratch folder lies."""
    return scratch / "responses" / "ledger.sqlite"


def spending_of(ledger: Ledger, product: str) -> dict[str, int | float | str]:
    """What a product's manifest says of its price, over all runs.

    Returns:
        "dollars" (a number, or "price unknown" when one of its calls had no price), "paid_calls", "paid_tokens",
        and "calls by estimate" where the provider did not say what a call used.
    """
    spent = ledger.spent(product)
    return {
        "dollars": "price unknown" if spent.num_unpriced else round(spent.dollars, 6),
        "paid_calls": spent.calls,
        "paid_tokens": spent.tokens,
        **({"calls by estimate": spent.num_estimated} if spent.num_estimated else {}),
    }


def write_spending(path: Path, ledger: Ledger, product: str) -> None:
    """Write a product's spending as JSON: in all, by each grouping, and by purpose, task type and corpus at once."""
    details: tuple[Grouping, ...] = ("purpose", "task_type", "corpus")
    told = {
        "schema": 1,
        "product": product,
        "total": _figures(ledger.spent(product)),
        **{f"by_{by}": _by(ledger, by, product) for by in GROUPINGS if by not in ("product", "stage")},
        "rows": [
            {**dict(zip(details, names, strict=True)), **_figures(spent)}
            for names, spent in ledger.sums(details, product).items()
        ],
    }
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


def spending_rows(ledger: Ledger, by: Grouping, product: str | None = None) -> list[dict[str, Any]]:
    """One row a group, dearest first: `group` and the figures of `Spent`; `dollars` is null when none has a price."""
    rows = [{"group": name, **figures} for name, figures in _by(ledger, by, product).items()]
    return sorted(rows, key=lambda row: (-(row["dollars"] or 0.0), -row["tokens"], row["group"]))


def _by(ledger: Ledger, by: Grouping, product: str | None) -> dict[str, dict[str, Any]]:
    return {name: _figures(spent) for (name,), spent in ledger.sums([by], product).items()}


def _figures(spent: Spent) -> dict[str, Any]:
    priced = spent.num_unpriced < spent.calls or not spent.calls
    return {**asdict(spent), "tokens": spent.tokens, "dollars": round(spent.dollars, 6) if priced else None}
