"""Strategies side by side on a terminal, in tables that fit 100 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from longalign_core.batching.comparison import StrategyRow, shared_ranks
from longalign_core.batching.notes import counted, in_hours, notes, verdict

REPORT = "report.json"
# More numbers of ranks than fit are left to the JSON.
_RANKS_SHOWN = 9


def comparison_view(rows: Sequence[StrategyRow]) -> Group:
    """What each packing strategy makes of the given lengths, for people.

    Args:
        rows: One a strategy.
    """
    first = rows[0]
    summary = (
        f"{first['sequences']:,} sequences, {first['tokens']:,} tokens, packs of {first['capacity']:,}, "
        f"{counted(first['ranks'], 'rank')}, one epoch"
    )
    return Group(
        Text(summary),
        Text(verdict(rows)),
        _room_and_time(rows),
        _waiting_by_ranks(rows),
        _steps_and_weights(rows),
        Text("\n".join(notes(rows)), style="dim"),
    )


def planned_view(folder: Path) -> Table:
    """Room and time of a plan beside plans of other strategies.

    Args:
        folder: A product of `batches`.
    """
    return _room_and_time(planned_rows(folder))


def planned_rows(folder: Path) -> list[StrategyRow]:
    """A plan's first epoch beside those of other strategies, as `report.json` has them.

    Args:
        folder: A product of `batches`.
    """
    rows: list[StrategyRow] = orjson.loads((folder / REPORT).read_bytes())["compared"]
    return rows


def _room_and_time(rows: Sequence[StrategyRow]) -> Table:
    hours = ("hours",) if rows[0]["hardware"] else ()
    return _table(
        f"room, and time with {counted(rows[0]['ranks'], 'rank')}",
        ("strategy", "packs", "utilisation", "steps", "micro-steps", "idle", "time ÷ ideal", *hours),
        (
            (
                row["strategy"],
                f"{row['packs']:,}",
                f"{row['utilisation']:.4f}",
                f"{row['steps']:,}",
                f"{row['micro_steps']:,}",
                f"{row['idle']:.4f}",
                f"{row['time_vs_ideal']:.2f}",
                *(() if row["hours"] is None else (in_hours(row["hours"]),)),
            )
            for row in rows
        ),
    )


def _waiting_by_ranks(rows: Sequence[StrategyRow]) -> Table:
    ranks = shared_ranks(rows)[-_RANKS_SHOWN:]
    return _table(
        "idle, by number of ranks",
        ("strategy", *ranks),
        ((row["strategy"], *(f"{row['idle_by_ranks'][number]:.4f}" for number in ranks)) for row in rows),
    )


def _steps_and_weights(rows: Sequence[StrategyRow]) -> Table:
    return _table(
        "steps and weights",
        ("strategy", "slots", "sequences a step", "fewest-most", "long tokens", "ess step", "epoch", "pack"),
        (
            (
                row["strategy"],
                f"{row['slots_per_step']:,}",
                f"{row['sequences_per_step']:,.1f} ± {row['sequences_per_step_spread']['standard_deviation']:,.1f}",
                f"{row['sequences_per_step_spread']['minimum']:,.0f}-{row['sequences_per_step_spread']['maximum']:,.0f}",
                f"{row['long_token_share']['mean']:.2f} ± {row['long_token_share']['standard_deviation']:.2f}",
                *(f"{row['ess_by_normaliser'][name]:.3f}" for name in ("step", "epoch", "pack")),
            )
            for row in rows
        ),
    )


def _table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
