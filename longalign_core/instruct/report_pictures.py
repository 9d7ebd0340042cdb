"""The pictures of the report of `instruct`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from longalign_core.drawing import ACCENT, INK, MUTED, SURFACE, WARN, as_svg, new_figure
from longalign_core.instruct.report_counts import Acceptance

_POSITION_BINS = 20


def acceptance_picture(groups: Mapping[str, Acceptance]) -> str:
    """A bar for each group: the accepted part, then the rejected one."""
    figure, axes = new_figure(height=0.7 + 0.3 * max(len(groups), 1))
    for row, one in enumerate(groups.values()):
        total = max(one.total, 1)
        axes.barh(row, one.share, 0.62, color=ACCENT, linewidth=0)
        axes.barh(row, one.rejected.total() / total, 0.62, left=one.share, color=WARN, alpha=0.8, linewidth=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(groups), 1) - 0.4, -0.6)
    axes.set_yticks(range(len(groups)), list(groups), parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=8)
    axes.grid(visible=False)
    axes.grid(axis="x", color=MUTED, linewidth=0.7)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    accepted = sum(one.accepted for one in groups.values())
    total = sum(one.total for one in groups.values())
    return as_svg(figure, f"Share accepted in each of {len(groups)} groups; in all {accepted} of {total}.")


def position_picture(positions: Sequence[float]) -> str:
    """Histogram of places in a document, from its beginning to its end, with its thirds marked."""
    figure, axes = new_figure(height=2.4)
    counts, edges = np.histogram(positions, bins=_POSITION_BINS, range=(0, 1))
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=ACCENT, edgecolor=SURFACE, linewidth=0.8)
    for edge in (1 / 3, 2 / 3):
        axes.axvline(edge, color=INK, alpha=0.5, linewidth=0.9, linestyle=(0, (5, 3)))
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    _count_axis(axes)
    axes.set_xlabel("place in the document")
    axes.set_ylabel("passages")
    return as_svg(figure, f"Histogram of the places of {len(positions)} passages within their documents.")


def words_picture(lengths: Sequence[float], unit: str) -> str:
    """Histogram of lengths in words on a logarithmic axis."""
    figure, axes = new_figure(height=2.4)
    values = np.maximum(np.asarray(lengths, float), 1)
    low, high = (values.min(), values.max()) if len(values) else (1.0, 10.0)
    edges = np.geomspace(low / 1.1, high * 1.1, 31)
    counts, _ = np.histogram(values, bins=edges)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=ACCENT, edgecolor=SURFACE, linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=9))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _count_axis(axes)
    axes.set_xlabel(f"words in {'an' if unit[0] in 'aeiou' else 'a'} {unit}")
    axes.set_ylabel(f"{unit}s")
    return as_svg(figure, f"Histogram of the lengths of {len(lengths)} {unit}s in words.")


def _count_axis(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
