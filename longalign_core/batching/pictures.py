"""Two pictures of strategies side by side: how full their packs are, and which ranks wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from longalign_core.batching.opening import Opening
from longalign_core.drawing import ACCENT, INK, MUTED, SURFACE, WARN, short_tokens

# The shares of a pack at which a sequence counts as longer, and how strongly each class is drawn:
# strength is told apart without seeing colours, by day and by night.
_CLASS_SHARES = (1 / 32, 1 / 8, 1 / 2)
_STRENGTHS = (0.22, 0.45, 0.7, 1.0)
# Sequences shorter than this part of a pack are drawn as one piece: alone they could not be seen.
_LEAST_SHARE = 1 / 400
# And a pack with anything in it is drawn at least so wide.
_LEAST_DRAWN = 1 / 80
_RANKS_SHOWN = 16
# Of the timeline's width, between one micro-step and the next.
_GAP = 1 / 1000
# How much of the epoch the timeline shows, in times of an average full pack.
_PACKS_OF_TIME = 8
WIDTH = 11.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colours of a picture. The default are those that become the page's own."""

    ink: str = INK
    line: str = MUTED
    accent: str = ACCENT
    surface: str = SURFACE
    warn: str = WARN


# The pages' colours by day, for files that stand alone.
PAPER = Palette(ink="#1a2230", line="#dde2ea", accent="#1f6feb", surface="#ffffff", warn="#b4450f")


def packs_height() -> float:
    """Height of the picture of packs, in inches."""
    return 3.7


def timeline_height(openings: Sequence[Opening]) -> float:
    """Height of the timeline, in inches."""
    ranks = min(int(openings[0].costs.shape[1]), _RANKS_SHOWN)
    return 1.0 + len(openings) * (0.42 + max(0.24, 0.085 * ranks))


def draw_packs(
    figure: Figure | SubFigure, openings: Sequence[Opening], palette: Palette, *, capacity: int, title: str = ""
) -> None:
    """The first packs of each strategy as bars of their sequences; what is left white is room not used.

    Args:
        figure: Where to draw, about 11 inches wide.
        openings: One a strategy.
        palette: Colours.
        capacity: Tokens a pack holds.
        title: Stands over the picture; empty for none.
    """
    panels = figure.subplots(1, len(openings), sharex=True, sharey=True, squeeze=False)[0]
    edges = class_edges(capacity)
    for axes, opening in zip(panels, openings, strict=True):
        for pack, lengths in enumerate(opening.packs):
            axes.barh(pack, capacity, 0.8, color=palette.line, alpha=0.45, linewidth=0)
            pieces = pieces_of(lengths, capacity)
            strengths = [_STRENGTHS[place] for place in np.searchsorted(edges, [one for one, _ in pieces], "right")]
            widths = [float(width) for _, width in pieces]
            if sum(widths) < capacity * _LEAST_DRAWN:  # or an almost empty pack would look empty
                widths = [width * capacity * _LEAST_DRAWN / sum(widths) for width in widths]
            axes.barh(
                [pack] * len(pieces), widths, 0.8, left=np.cumsum([0, *widths[:-1]]),
                color=[to_rgba(palette.accent, strength) for strength in strengths],
                edgecolor=palette.surface, linewidth=0.35,
            )  # fmt: skip
        for step_end in range(opening.slots_per_step, len(opening.packs), opening.slots_per_step):
            axes.axhline(step_end - 0.5, color=palette.ink, linewidth=0.9)
        _plain_axes(axes, palette)
        axes.set_title(
            f"{opening.strategy}\n{percent(opening.utilisation)} full", color=palette.ink, fontsize=10, loc="left"
        )
        axes.set_xlim(0, capacity)
        axes.set_ylim(max(len(one.packs) for one in openings) - 0.4, -0.6)
        axes.set_xticks([0, capacity / 2, capacity])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_tokens(value)))
        axes.xaxis.get_ticklabels()[0].set_horizontalalignment("left")
        axes.xaxis.get_ticklabels()[-1].set_horizontalalignment("right")
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks([0, max(len(one.packs) for one in openings) - 1])
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"pack {value + 1:.0f}"))
    figure.supxlabel("tokens", color=palette.ink, fontsize=9)
    handles: list[Artist] = [
        Patch(facecolor=to_rgba(palette.accent, strength), label=label)
        for strength, label in zip(_STRENGTHS, class_labels(capacity), strict=True)
    ]
    handles.append(Patch(facecolor=to_rgba(palette.line, 0.45), edgecolor=palette.line, label="room left empty"))
    if any(one.slots_per_step < len(one.packs) for one in openings):
        handles.append(Line2D([], [], color=palette.ink, linewidth=0.9, label="end of an optimizer step"))
    _legend(figure, handles, palette, title)


def draw_timeline(
    figure: Figure | SubFigure,
    openings: Sequence[Opening],
    palette: Palette,
    *,
    full_pack: float,
    unit: float,
    axis_label: str,
    epoch_times: Sequence[str],
    title: str = "",
) -> None:
    """What every rank does while training begins, on one axis of time for all strategies.

    Args:
        figure: Where to draw, about 11 inches wide.
        openings: One a strategy, all with the same number of ranks.
        palette: Colours.
        full_pack: Cost of an average full pack.
        unit: Cost that is 1 on the axis.
        axis_label: What the axis counts.
        epoch_times: How long an epoch takes, in words, one a strategy.
        title: Stands over the picture; empty for none.
    """
    end = shown_time(openings, full_pack)
    gap = end * _GAP
    panels = figure.subplots(len(openings), 1, sharex=True, squeeze=False)[:, 0]
    for axes, opening, epoch_time in zip(panels, openings, epoch_times, strict=True):
        ranks = min(opening.costs.shape[1], _RANKS_SHOWN)
        busy, idle, step_ends = spans(opening, end)
        for rank in range(ranks):
            for of_ranks, color in ((busy, palette.accent), (idle, to_rgba(palette.warn, 0.5))):
                # What follows is set off by a gap, but of what is thin the gap would leave nothing.
                drawn = [
                    (start / unit, (width - gap if width > 5 * gap else width) / unit)
                    for start, width in of_ranks[rank]
                ]
                axes.broken_barh(drawn, (rank - 0.46, 0.92), facecolors=color, linewidth=0)
        for step_end in step_ends:
            axes.axvline(step_end / unit, color=palette.ink, linewidth=0.9)
        _plain_axes(axes, palette)
        axes.set_title(
            f"{opening.strategy}: ranks wait {percent(opening.idle)} of the time",
            color=palette.ink,
            fontsize=10,
            loc="left",
        )
        axes.set_title(epoch_time, color=palette.ink, fontsize=9, loc="right")
        axes.set_ylim(ranks - 0.4, -0.6)
        axes.set_xlim(0, end / unit)
        axes.set_yticks(sorted({0, ranks - 1}), [f"rank {rank + 1}" for rank in sorted({0, ranks - 1})])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
    panels[-1].set_xlabel(axis_label, color=palette.ink, fontsize=9)
    handles = [
        Patch(facecolor=palette.accent, label="working on a pack"),
        Patch(facecolor=to_rgba(palette.warn, 0.5), label="waiting for the slowest rank"),
        Line2D([], [], color=palette.ink, linewidth=0.9, label="end of an optimizer step"),
    ]
    _legend(figure, handles, palette, title)


def spans(
    opening: Opening, end: float
) -> tuple[list[list[tuple[float, float]]], list[list[tuple[float, float]]], list[float]]:
    """When ranks work and wait, up to a time.

    Args:
        opening: A strategy's beginning.
        end: What starts later is left out, what lasts longer is cut.

    Returns:
        For each rank the start and width of its work, the same of its waiting, and the ends of steps.
    """
    durations = opening.costs.max(axis=1)
    starts = np.cumsum(durations) - durations
    num_ranks = opening.costs.shape[1]
    busy: list[list[tuple[float, float]]] = [[] for _ in range(num_ranks)]
    idle: list[list[tuple[float, float]]] = [[] for _ in range(num_ranks)]
    for start, duration, costs in zip(starts, durations, opening.costs, strict=True):
        for rank, cost in enumerate(costs):
            for into, first, last in ((busy, start, start + cost), (idle, start + cost, start + duration)):
                if min(last, end) > first:
                    into[rank].append((float(first), float(min(last, end) - first)))
    a_step = opening.slots_per_step // num_ranks
    step_ends = (starts + durations)[a_step - 1 :: a_step]
    return busy, idle, [float(one) for one in step_ends if one < end]


def shown_time(openings: Sequence[Opening], full_pack: float) -> float:
    """Where the axis of time ends: no strategy has work that is not known there."""
    totals = [(float(one.costs.max(axis=1).sum()), one.is_whole) for one in openings]
    end = min(max(total for total, _ in totals), _PACKS_OF_TIME * full_pack)
    return min([end, *(total for total, is_whole in totals if not is_whole)])


def pieces_of(lengths: Sequence[int], capacity: int) -> list[tuple[int, int]]:
    """What is drawn of a pack: a piece a sequence, but one for all that are too short to be seen.

    Args:
        lengths: Of the pack's sequences, longest first.
        capacity: Tokens a pack holds.

    Returns:
        For each piece the longest sequence in it and its tokens in all.
    """
    seen = [length for length in lengths if length >= capacity * _LEAST_SHARE]
    short = lengths[len(seen) :]
    return [(length, length) for length in seen] + ([(short[0], sum(short))] if short else [])


def class_edges(capacity: int) -> NDArray[np.float64]:
    """Tokens at which classes of length begin."""
    return np.array(_CLASS_SHARES) * capacity


def class_labels(capacity: int) -> list[str]:
    """The classes of length in words."""
    edges = [short_tokens(edge) for edge in class_edges(capacity)]
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"sequence under {edges[0]} tokens", *between, f"{edges[-1]} and over"]


def percent(share: float) -> str:
    """A share in per cent; what is not quite all never reads as 100 %."""
    if 0.99 < share < 1:
        return f"{math.floor(share * 10_000) / 100:.2f} %"
    return f"{share * 100:.1f} %" if 0 < share < 0.1 else f"{share * 100:.0f} %"


def _plain_axes(axes: Axes, palette: Palette) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=palette.ink, labelsize=8)
    axes.tick_params(axis="x", color=palette.line)


def _legend(figure: Figure | SubFigure, handles: Sequence[Artist], palette: Palette, title: str) -> None:
    legend = figure.legend(
        title=title or None, title_fontproperties={"size": 12, "weight": "bold"}, alignment="left",
        handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8.5,
        labelcolor=palette.ink, handlelength=1.2, handleheight=0.9, columnspacing=1.4,
    )  # fmt: skip
    legend.get_title().set_color(palette.ink)
