"""What `instruct` wrote, as tables for a terminal and for Prefect's pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from rich.console import Group
from rich.table import Table

REPORT, SPENDING = "instruct.json", "spending.json"


def written_view(folder: Path) -> Group:
    """Conversations by task type and corpus with the reasons of rejects, then what the calls came to.

    Args:
        folder: A product of `instruct`.
    """
    tables = [
        _table("conversations by task type and corpus", written_rows(folder)),
        _table("model calls of this product, by purpose and task type", spent_rows(folder)),
    ]
    return Group(*tables)


def written_rows(folder: Path) -> list[dict[str, str | int]]:
    """A row a task type, then one a corpus and one a length range: accepted, rejected, and why."""
    acceptance = orjson.loads((folder / REPORT).read_bytes())["acceptance"]
    return [
        {
            "by": by,
            "group": group,
            "accepted": one["accepted"],
            "rejected": sum(one["rejected"].values()),
            "reasons": ", ".join(f"{reason} {count:,}" for reason, count in one["rejected"].items()),
        }
        for by, groups in acceptance.items()
        for group, one in groups.items()
    ]


def spent_rows(folder: Path) -> list[dict[str, str | int | float]]:
    """What was paid for a product: a row a purpose and task type; none where every reply was stored already."""
    file = folder / SPENDING
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in orjson.loads(file.read_bytes())["rows"] if file.is_file() else ():
        sums = rows.setdefault((row["purpose"], row["task_type"]), dict.fromkeys(_FIGURES, 0) | {"dollars": 0.0})
        for name in _FIGURES:
            sums[name] += row[name]
        known = row["dollars"] is not None and isinstance(sums["dollars"], float)
        sums["dollars"] = sums["dollars"] + row["dollars"] if known else "price unknown"
    return [
        {"purpose": purpose, "task type": task_type, **{name.replace("_", " "): value for name, value in sums.items()}}
        for (purpose, task_type), sums in rows.items()
    ]


_FIGURES = ("calls", "prompt_tokens", "cached_tokens", "reply_tokens")


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ("nothing",):
        table.add_column(name, justify="left" if rows and isinstance(rows[0][name], str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_plain(value) for value in row.values()))
    return table


def _plain(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}"
    return value if isinstance(value, str) else f"{value:,}"
