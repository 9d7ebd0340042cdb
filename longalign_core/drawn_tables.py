"""What `select` drew, as tables for a terminal and for Prefect's pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

SELECTION, PAGE = "selection.json", "report.html"


def drawn_view(folder: Path) -> Group:
    """Documents by corpus, length and language, then rejects by reason, then what fell short.

    Args:
        folder: A product of `select`.
    """
    told = orjson.loads((folder / SELECTION).read_bytes())
    tables = [_length_table(name, frame) for name, frame in drawn_frames(told).items()]
    rejects = Table(title="left out, by stage and reason", title_justify="left")
    for heading in ("stage", "reason"):
        rejects.add_column(heading)
    rejects.add_column("records", justify="right")
    rejects.add_column("corpora", overflow="fold")
    for row in reject_rows(told):
        rejects.add_row(row["stage"], row["reason"], f"{row['records']:,}", row["corpora"])
    return Group(*tables, rejects, Text("\n".join(told["summary"])))


def drawn_frames(told: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Documents drawn, by language group: a row a corpus, a column a range of lengths, with sums.

    Args:
        told: What `selection.json` holds.
    """
    import pandas as pd

    rows = [
        {"group": cell["group"], "corpus": name, "tokens": _range(cell), "drawn": one["drawn"]}
        for cell in told["cells"]
        for name, one in cell["by_source"].items()
    ]
    ranges = list(dict.fromkeys(_range(cell) for cell in told["cells"]))
    groups = list(dict.fromkeys(cell["group"] for cell in told["cells"]))
    cells = pd.DataFrame(rows, columns=["group", "corpus", "tokens", "drawn"])
    frames = {}
    for group in groups:
        own = cells[cells["group"] == group]
        frame = own.pivot_table(index="corpus", columns="tokens", values="drawn", aggfunc="sum", fill_value=0)
        frame = frame.reindex(columns=ranges, fill_value=0).astype(int)
        frame["all"] = frame.sum(axis=1)
        frame.loc["all"] = frame.sum(axis=0)
        wanted = [cell["wanted"] for cell in told["cells"] if cell["group"] == group]
        frame.loc["wanted"] = [*wanted, sum(wanted)]
        frames[group] = frame
    return frames


def drawn_rows(folder: Path) -> list[dict[str, str | int]]:
    """The same in one table of plain rows, the language group a column where there are several."""
    frames = drawn_frames(orjson.loads((folder / SELECTION).read_bytes()))
    return [
        {
            **({"language": group} if len(frames) > 1 else {}),
            "corpus": str(corpus),
            **{str(name): int(number) for name, number in row.items()},
        }
        for group, frame in frames.items()
        for corpus, row in frame.iterrows()
    ]


def reject_rows(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Rejects by stage and reason, with the numbers of each corpus in words."""
    by_reason: dict[tuple[str, str], dict[str, int]] = {}
    for row in told["rejects"]:
        by_reason.setdefault((row["stage"], row["reason"]), {})[row["corpus"]] = row["count"]
    return [
        {
            "stage": stage,
            "reason": reason,
            "records": sum(by_corpus.values()),
            "corpora": ", ".join(f"{name} {count:,}" for name, count in sorted(by_corpus.items())),
        }
        for (stage, reason), by_corpus in by_reason.items()
    ]


def rejects_of(folder: Path) -> list[dict[str, Any]]:
    """Rejects of a `select` product and of the stages before it; see `reject_rows`."""
    return reject_rows(orjson.loads((folder / SELECTION).read_bytes()))


def _length_table(group: str, frame: pd.DataFrame) -> Table:
    of = "" if group == "all" else f", language group {group}"
    table = Table(title=f"drawn documents by corpus and tokens{of}", title_justify="left")
    table.add_column("corpus")
    for name in frame.columns:
        table.add_column(str(name), justify="right")
    for corpus, row in frame.iterrows():
        if corpus == "all":
            table.add_section()
        table.add_row(str(corpus), *(f"{int(number):,}" for number in row))
    return table


def _range(cell: dict[str, Any]) -> str:
    return f"{cell['min_tokens']}–{cell['max_tokens']}"
