"""The scorecard's pictures, as SVG that stands inside the page and takes its colours from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from longalign_core.drawing import ACCENT, SURFACE, WARN, as_svg, new_figure, short_tokens

# Orange to teal: told apart by people who do not see red and green, and dark enough for white figures.
_SCORES = LinearSegmentedColormap.from_list("scores", ["#b4450f", "#8a6d3b", "#0f766e"])
_UNSCORED = "#6b7280"


def length_histogram(lengths: NDArray[np.int64]) -> str:
    """How many sequences there are of each length, on a logarithmic axis."""
    figure, axes = new_figure()
    low, high = int(lengths.min()), int(lengths.max())
    bins = np.geomspace(max(low, 1), max(high, low + 1) * 1.001, min(40, 8 + len(lengths) // 4))
    axes.hist(lengths, bins=list(bins), color=ACCENT, edgecolor=SURFACE, linewidth=0.6)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_tokens(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.set_xlabel("tokens in a sequence")
    axes.set_ylabel("sequences")
    return as_svg(
        figure,
        f"Histogram of {len(lengths)} training sequences by length, from {low} to {high} tokens, "
        f"median {int(np.median(lengths))}.",
    )


def packs_picture(packs: Sequence[Sequence[int]], capacity: int) -> str:
    """Packs as columns of their sequences, under the line of their capacity."""
    figure, axes = new_figure()
    for place, lengths in enumerate(packs):
        bottoms = np.cumsum([0, *lengths[:-1]])
        axes.bar(
            [place + 1] * len(lengths),
            lengths,
            bottom=bottoms,
            width=0.86,
            color=ACCENT,
            edgecolor=SURFACE,
            linewidth=0.6,
        )
    axes.axhline(capacity, color=WARN, linewidth=1.4, linestyle=(0, (5, 3)))
    axes.annotate(
        f"capacity {capacity:,}", (1, capacity), xycoords=("axes fraction", "data"), xytext=(0, 4),
        textcoords="offset points", ha="right", color=WARN,
    )  # fmt: skip
    axes.set_ylim(0, capacity * 1.12)
    axes.set_xlim(0.4, len(packs) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_tokens(value)))
    axes.set_xlabel("pack")
    axes.set_ylabel("tokens")
    fills = [sum(lengths) / capacity for lengths in packs]
    return as_svg(
        figure,
        f"The first {len(packs)} packs as columns of their sequences; they fill {min(fills):.0%} to {max(fills):.0%} "
        f"of the capacity of {capacity} tokens.",
    )


def loss_curve(steps: NDArray[np.int64], losses: NDArray[np.float64]) -> str:
    """Loss by optimizer step."""
    figure, axes = new_figure()
    axes.plot(steps, losses, color=ACCENT, linewidth=1.8, marker="o" if len(steps) <= 40 else None, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    return as_svg(figure, f"Training loss over {len(steps)} steps, from {losses[0]:.3f} to {losses[-1]:.3f}.")


def score_histogram(scores: Sequence[float], minimum: float, maximum: float) -> str:
    """How many questions got each score."""
    figure, axes = new_figure()
    edges = np.arange(minimum - 0.5, maximum + 1)
    axes.hist(scores, bins=list(edges), color=ACCENT, edgecolor=SURFACE, linewidth=0.6)
    axes.set_xticks(np.arange(minimum, maximum + 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.set_xlabel("score of a question")
    axes.set_ylabel("questions")
    return as_svg(figure, f"Histogram of {len(scores)} question scores on the scale {minimum:g} to {maximum:g}.")


def needle_heatmap(cells: dict[tuple[int, float], float | None]) -> str:
    """Score by depth and length.

    Args:
        cells: By (prompt length in tokens, depth from 0 to 1): a score from 0 to 1, or None.
    """
    lengths = sorted({length for length, _ in cells})
    depths = sorted({depth for _, depth in cells})
    figure, axes = new_figure(height=max(3.0, 0.34 * len(depths) + 0.9))
    for (length, depth), score in cells.items():
        left, top = lengths.index(length), depths.index(depth)
        color = _UNSCORED if score is None else _SCORES(score)
        axes.add_patch(Rectangle((left, top), 1, 1, facecolor=color, edgecolor=SURFACE, linewidth=1.5))
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
    return as_svg(
        figure,
        f"Heatmap of needle retrieval over {len(depths)} depths and {len(lengths)} lengths: found in {found} of "
        f"{len(cells)} cells, {unscored} unscored.",
    )
