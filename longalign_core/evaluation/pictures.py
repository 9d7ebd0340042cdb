"""The scorecard's pictures, as SVG that stands inside the page and takes its colours from it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

# Stand-ins that become the page's own colours, so that a picture is right by day and by night.
_INK, _MUTED, _ACCENT, _SURFACE, _WARN = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--line)",
    _ACCENT: "var(--accent)",
    _SURFACE: "var(--surface)",
    _WARN: "var(--warn)",
}
# Orange to teal: told apart by people who do not see red and green, and dark enough for white figures.
_SCORES = LinearSegmentedColormap.from_list("scores", ["#b4450f", "#8a6d3b", "#0f766e"])
_UNSCORED = "#6b7280"


def length_histogram(lengths: NDArray[np.int64]) -> str:
    """How many sequences there are of each length, on a logarithmic axis."""
    figure, axes = _figure()
    low, high = int(lengths.min()), int(lengths.max())
    bins = np.geomspace(max(low, 1), max(high, low + 1) * 1.001, min(40, 8 + len(lengths) // 4))
    axes.hist(lengths, bins=list(bins), color=_ACCENT, edgecolor=_SURFACE, linewidth=0.6)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tokens(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.set_xlabel("tokens in a sequence")
    axes.set_ylabel("sequences")
    return _svg(
        figure,
        f"Histogram of {len(lengths)} training sequences by length, from {low} to {high} tokens, "
        f"median {int(np.median(lengths))}.",
    )


def packs_picture(packs: Sequence[Sequence[int]], capacity: int) -> str:
    """Packs as columns of their sequences, under the line of their capacity."""
    figure, axes = _figure()
    for place, lengths in enumerate(packs):
        bottoms = np.cumsum([0, *lengths[:-1]])
        axes.bar(
            [place + 1] * len(lengths),
            lengths,
            bottom=bottoms,
            width=0.86,
            color=_ACCENT,
            edgecolor=_SURFACE,
            linewidth=0.6,
        )
    axes.axhline(capacity, color=_WARN, linewidth=1.4, linestyle=(0, (5, 3)))
    axes.annotate(
        f"capacity {capacity:,}", (1, capacity), xycoords=("axes fraction", "data"), xytext=(0, 4),
        textcoords="offset points", ha="right", color=_WARN,
    )  # fmt: skip
    axes.set_ylim(0, capacity * 1.12)
    axes.set_xlim(0.4, len(packs) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tokens(value)))
    axes.set_xlabel("pack")
    axes.set_ylabel("tokens")
    fills = [sum(lengths) / capacity for lengths in packs]
    return _svg(
        figure,
        f"The first {len(packs)} packs as columns of their sequences; they fill {min(fills):.0%} to {max(fills):.0%} "
        f"of the capacity of {capacity} tokens.",
    )


def loss_curve(steps: NDArray[np.int64], losses: NDArray[np.float64]) -> str:
    """Loss by optimizer step."""
    figure, axes = _figure()
    axes.plot(steps, losses, color=_ACCENT, linewidth=1.8, marker="o" if len(steps) <= 40 else None, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    return _svg(figure, f"Training loss over {len(steps)} steps, from {losses[0]:.3f} to {losses[-1]:.3f}.")


def score_histogram(scores: Sequence[float], minimum: float, maximum: float) -> str:
    """How many questions got each score."""
    figure, axes = _figure()
    edges = np.arange(minimum - 0.5, maximum + 1)
    axes.hist(scores, bins=list(edges), color=_ACCENT, edgecolor=_SURFACE, linewidth=0.6)
    axes.set_xticks(np.arange(minimum, maximum + 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.set_xlabel("score of a question")
    axes.set_ylabel("questions")
    return _svg(figure, f"Histogram of {len(scores)} question scores on the scale {minimum:g} to {maximum:g}.")


def needle_heatmap(cells: dict[tuple[int, float], float | None]) -> str:
    """Score by depth and length.

    Args:
        cells: By (prompt length in tokens, depth from 0 to 1): a score from 0 to 1, or None.
    """
    lengths = sorted({length for length, _ in cells})
    depths = sorted({depth for _, depth in cells})
    figure, axes = _figure(height=max(3.0, 0.34 * len(depths) + 0.9))
    for (length, depth), score in cells.items():
        left, top = lengths.index(length), depths.index(depth)
        color = _UNSCORED if score is None else _SCORES(score)
        axes.add_patch(Rectangle((left, top), 1, 1, facecolor=color, edgecolor=_SURFACE, linewidth=1.5))
        text = "–" if score is None else f"{score:.2g}"
        axes.text(left + 0.5, top + 0.5, text, ha="center", va="center", color="#ffffff", fontsize=10)
    axes.set_xlim(0, len(lengths))
    axes.set_ylim(len(depths), 0)
    axes.set_xticks([place + 0.5 for place in range(len(lengths))], [f"{length:,}" for length in lengths])
    axes.set_yticks([place + 0.5 for place in range(len(depths))], [f"{depth:.0%}" for depth in depths])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("prompt length, tokens")
    axes.set_ylabel("needle depth")
    found = sum(1 for score in cells.values() if score == 1)
    unscored = sum(1 for score in cells.values() if score is None)
    return _svg(
        figure,
        f"Heatmap of needle retrieval over {len(depths)} depths and {len(lengths)} lengths: found in {found} of "
        f"{len(cells)} cells, {unscored} unscored.",
    )


def _tokens(value: float) -> str:
    return f"{value / 1024:g}k" if value >= 1024 and value % 256 == 0 else f"{value:,.0f}"


def _figure(height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.8, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_MUTED)
    axes.tick_params(which="both", colors=_INK, color=_MUTED)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.grid(axis="y", color=_MUTED, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, description: str) -> str:
    """The figure as one <svg> element with a description, without anything that points outside the page."""
    content = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    # Names of matplotlib's groups repeat from picture to picture; those of clip paths and markers do not.
    text = re.sub(r' id="[A-Za-z][\w.]*_\d+"| xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(
        r'<svg[^>]*viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{description}">', text
    )
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return re.sub(r"\n\s*", "\n", text).strip()
