"""The curves of a training run, as SVG that stands inside a page and takes its colours from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from longalign_core.drawing import ACCENT, INK, WARN, as_svg, new_figure
from longalign_core.training.metrics import StepMetrics

# More points than this cannot be told apart, and make a page large.
_MOST_POINTS = 500
# Of the run, how much a smoothed curve looks back.
_MEMORY = 1 / 30


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the steps up to each one, older ones fading; NaN is no value, and where none came yet stays."""
    keep = 1 - 1 / max(1.0, _MEMORY * len(values))
    total = weight = 0.0
    means = np.full(len(values), np.nan)
    for place, value in enumerate(values):
        total, weight = keep * total, keep * weight
        if not np.isnan(value):
            total, weight = total + value, weight + 1
        if weight:
            means[place] = total / weight
    return means


def loss_curve(steps: Sequence[StepMetrics]) -> str:
    """The loss of every step and its smoothed course."""
    figure, axes = new_figure()
    losses = _column([one.loss for one in steps])
    _plot(axes, steps, losses, ACCENT, alpha=0.3, label="each step")
    _plot(axes, steps, smoothed(losses), ACCENT, label="smoothed")
    _plot(axes, steps, smoothed(_column([one.token_loss for one in steps])), WARN, label="of target tokens, smoothed")
    return _finish(figure, axes, "loss", f"Loss over {len(steps)} steps, from {losses[0]:.3f} to {losses[-1]:.3f}.")


def bucket_curves(steps: Sequence[StepMetrics], buckets: Sequence[str]) -> str:
    """Smoothed loss of sequences of each length; lengths that never came are left out."""
    figure, axes = new_figure()
    columns = {name: _column([one.bucket_losses[place] for one in steps]) for place, name in enumerate(buckets)}
    present = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    for place, (name, column) in enumerate(present.items()):
        # Strength is told apart without seeing colours: the longer, the stronger.
        _plot(axes, steps, smoothed(column), ACCENT, alpha=0.25 + 0.75 * (place + 1) / len(present), label=name)
    return _finish(figure, axes, "loss", f"Loss by length of the sequence: {', '.join(present)} tokens.")


def plain_curve(steps: Sequence[StepMetrics], values: Sequence[float], label: str) -> str:
    """One figure of every step."""
    figure, axes = new_figure(2.2)
    column = _column(values)
    _plot(axes, steps, column, ACCENT)
    return _finish(figure, axes, label, f"{label} over {len(values)} steps, at last {column[-1]:.4g}.")


def lines(steps: Sequence[StepMetrics], columns: Mapping[str, Sequence[float | None]], label: str) -> str:
    """Figures of every step on one axis, at most three, smoothed."""
    figure, axes = new_figure(2.2)
    for (name, values), color in zip(columns.items(), (ACCENT, WARN, INK), strict=False):
        _plot(axes, steps, smoothed(_column(values)), color, label=name)
    axes.set_ylim(bottom=0)
    return _finish(figure, axes, label, f"{label}: {', '.join(columns)}.")


def rank_bars(measured: Sequence[float], predicted: Sequence[float]) -> str:
    """Share of its time that each rank waited over the run, beside what was predicted."""
    figure, axes = new_figure(2.2)
    both = [(place, column) for place, column in enumerate((measured, predicted)) if column]
    for place, shares in both:
        axes.bar(
            np.arange(len(shares)) + (place - 0.5) * 0.4 * (len(both) - 1),
            [100 * share for share in shares],
            0.4,
            color=(ACCENT, WARN)[place],
            label=("measured", "predicted")[place],
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axes.set_xlabel("rank")
    axes.set_ylabel("% of time waiting")
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    told = "; ".join(f"rank {rank} {share:.0%}" for rank, share in enumerate(measured or predicted))
    return as_svg(figure, f"Time each rank waited: {told}.")


def _column(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _plot(
    axes: Axes,
    steps: Sequence[StepMetrics],
    values: NDArray[np.float64],
    color: str,
    *,
    alpha: float = 1.0,
    label: str = "",
) -> None:
    shown = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_POINTS)).round().astype(int))
    shown = shown[~np.isnan(values[shown])]
    marker = "o" if len(shown) == 1 else None
    numbers = np.array([one.step for one in steps])
    axes.plot(numbers[shown], values[shown], color=color, alpha=alpha, label=label, linewidth=1.6, marker=marker)


def _finish(figure: Figure, axes: Axes, label: str, description: str) -> str:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return as_svg(figure, description)
