"""Strategies side by side, for people: one page, or one picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure, SubFigure

from longalign_core.batching.comparison import UNPACKED, Comparison, StrategyRow, shared_ranks
from longalign_core.batching.notes import in_hours, notes, time_note, verdict
from longalign_core.batching.pictures import (
    PAPER,
    WIDTH,
    Palette,
    draw_packs,
    draw_timeline,
    packs_height,
    percent,
    timeline_height,
)
from longalign_core.drawing import as_svg
from longalign_core.page_frame import render_page

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
PACKS_TITLE = "How full packs are: the first of them"
TIMELINE_TITLE = "Who waits: what the ranks do as training begins, all on the same axis of time"


def write_picture(file: Path, comparison: Comparison) -> None:
    """Write both pictures: as an image, or with the figures on a page.

    Args:
        file: Ends in .png, .svg or .html.
        comparison: What to show.
    """
    if file.suffix.lower() == ".html":
        file.write_text(comparison_page(comparison), encoding="utf-8")
        return
    heights = [packs_height() + 0.3, timeline_height(comparison.openings) + 0.8]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained", facecolor=PAPER.surface)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=heights, hspace=0.04)[:, 0]
    for part, title, draw in ((upper, PACKS_TITLE, _packs), (lower, TIMELINE_TITLE, _timeline)):
        draw(comparison, part, PAPER, title)
    lower.supxlabel(_caption(comparison), color=PAPER.ink, fontsize=8, x=0.01, ha="left")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "batches"}):
        figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)


def comparison_page(comparison: Comparison, own: str | None = None) -> str:
    """One page that asks nothing of the network, readable by day and by night.

    Args:
        comparison: What to show.
        own: The strategy whose page this is; None where all are equal.
    """
    rows = comparison.rows
    shown = next((row for row in rows if row["strategy"] == own), rows[0])
    return render_page(
        _TEMPLATE,
        rows=rows,
        shared_ranks=shared_ranks(rows),
        first=shown,
        sampled=[row for row in rows if row["sequences"] != shown["sequences"]],
        source=comparison.source,
        hardware=rows[0]["hardware"],
        own=shown if own else None,
        has_unpacked=any(row["strategy"] in UNPACKED for row in rows),
        packs_title=PACKS_TITLE,
        timeline_title=TIMELINE_TITLE,
        packs=_svg(
            packs_height(),
            lambda figure: _packs(comparison, figure, Palette()),
            "The first packs of " + "; ".join(f"{row['strategy']}, {percent(row['utilisation'])} full" for row in rows),
        ),
        timeline=_svg(
            timeline_height(comparison.openings),
            lambda figure: _timeline(comparison, figure, Palette()),
            f"What {rows[0]['ranks']} ranks do as training begins: "
            + "; ".join(f"{row['strategy']}, waiting {percent(row['idle'])} of the time" for row in rows),
        ),
        percent=percent,
        verdict=verdict(rows),
        notes=notes(rows),
        in_hours=in_hours,
    )


def _caption(comparison: Comparison) -> str:
    """What a picture that stands alone has to tell."""
    first = comparison.rows[0]
    what = (
        f"{comparison.source}: {first['sequences']:,} sequences, packs of {first['capacity']:,} tokens. "
        f"Per cents and times are of a whole epoch. {verdict(comparison.rows)}"
    )
    return "\n".join(line for text in (what, time_note(comparison.rows)) for line in textwrap.wrap(text, 170))


def _packs(comparison: Comparison, figure: Figure | SubFigure, palette: Palette, title: str = "") -> None:
    draw_packs(figure, comparison.openings, palette, capacity=comparison.rows[0]["capacity"], title=title)


def _timeline(comparison: Comparison, figure: Figure | SubFigure, palette: Palette, title: str = "") -> None:
    first = comparison.rows[0]
    hardware = first["hardware"]
    full_pack = first["cost"] / max(1.0, first["tokens"] / first["capacity"])
    if first["cost_unit"] == "seconds":
        unit, label = 1.0, "time →   (seconds, by measured packs)"
    elif hardware is None or hardware["gpus"] is None or hardware["tflops"] is None:
        power = 3 * math.floor(math.log10(full_pack) / 3)
        unit, label = 10.0**power, f"time →   (work of one rank, 10{str(power).translate(_RAISED)} FLOPs)"
    else:
        unit, label = hardware["gpus"] / first["ranks"] * hardware["tflops"] * 1e12, "time →   (seconds)"
    times = [f"an epoch takes {row['time_vs_ideal']:.2f} × the ideal time{_in_hours(row)}" for row in comparison.rows]
    draw_timeline(
        figure,
        comparison.openings,
        palette,
        full_pack=full_pack,
        unit=unit,
        axis_label=label,
        epoch_times=times,
        title=title,
    )


def _in_hours(row: StrategyRow) -> str:
    return "" if row["hours"] is None else f"; {in_hours(row['hours'])} hours in all"


def _svg(height: float, draw: Callable[[Figure], None], description: str) -> str:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    draw(figure)
    return as_svg(figure, description)
