"""The pictures of a draw: lengths of each corpus, and the way from read to drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from longalign_core.corpora.selecting.funnel import LENGTH_EDGES, STEPS, Funnel, Lengths
from longalign_core.drawing import ACCENT, INK, MUTED, SURFACE, WARN, as_svg, new_figure, short_tokens


def length_picture(corpus: str, lengths: Lengths, span: tuple[int, int]) -> str:
    """Kept documents of a corpus by length, with the drawn ones in front; both axes logarithmic.

    Args:
        corpus: Its name.
        lengths: Its documents by length.
        span: Shortest and longest length that is drawn.
    """
    figure, axes = new_figure(height=2.6)
    widths = np.diff(LENGTH_EDGES)
    for counts, color, alpha in ((lengths.counted, INK, 0.22), (lengths.drawn, ACCENT, 1.0)):
        shown = counts > 0
        axes.bar(
            LENGTH_EDGES[:-1][shown], counts[shown], widths[shown], align="edge",
            color=color, alpha=alpha, edgecolor=SURFACE, linewidth=0.6,
        )  # fmt: skip
    for edge in span:
        axes.axvline(edge, color=WARN, linewidth=1.1, linestyle=(0, (5, 3)))
    present = np.flatnonzero(lengths.counted)
    low = min(LENGTH_EDGES[present[0]] if len(present) else span[0], span[0])
    high = max(LENGTH_EDGES[present[-1] + 1] if len(present) else span[1], span[1])
    axes.set_xscale("log", base=2)
    axes.set_xlim(low / 1.15, high * 1.15)
    axes.set_yscale("log")
    axes.set_ylim(0.7, max(10, int(lengths.counted.max(initial=1))) * 1.6)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_tokens(value)))
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("tokens in a document")
    axes.set_ylabel("documents")
    return as_svg(
        figure,
        f"Histogram of the lengths of {int(lengths.counted.sum())} documents of {corpus}, of which "
        f"{int(lengths.drawn.sum())} are drawn, all between {span[0]} and {span[1]} tokens.",
    )


def funnel_picture(funnels: Sequence[Funnel]) -> str:
    """Bars of documents for each corpus, one a step from read to drawn, on a logarithmic axis."""
    figure, axes = new_figure(height=0.7 + 0.44 * max(len(funnels), 1))
    height = 0.84 / len(STEPS)
    for place, step in enumerate(STEPS):
        numbers = [getattr(one, step) for one in funnels]
        tops = [row - 0.42 + height * place for row in range(len(funnels))]
        is_last = place == len(STEPS) - 1
        alpha = 1.0 if is_last else 0.22 + 0.13 * place
        # The axis begins at 0.5, so that a single document has a bar and none has not.
        bars = [max(number - 0.5, 0) for number in numbers]
        axes.barh(
            tops, bars, height, left=0.5, align="edge", color=WARN if is_last else ACCENT, alpha=alpha, linewidth=0
        )
        for top, number in zip(tops, numbers, strict=True):
            axes.annotate(
                f"{number:,} {step}", (max(number, 0.5), top + height / 2), xytext=(3, -0.5),
                textcoords="offset points", va="center", fontsize=5.2, color=INK,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(0.5, max([one.read for one in funnels] + [10]) * 8)
    axes.set_ylim(len(funnels) - 0.4, -0.6)
    axes.set_yticks(range(len(funnels)), [one.corpus for one in funnels])
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=7)
    axes.grid(visible=False)
    axes.grid(axis="x", color=MUTED, linewidth=0.7)
    axes.xaxis.set_major_locator(LogLocator(base=10, numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("documents", fontsize=7)
    total = ", ".join(f"{sum(getattr(one, step) for one in funnels)} {step}" for step in STEPS)
    return as_svg(figure, f"Documents of {len(funnels)} corpora from read to drawn; in all {total}.")
