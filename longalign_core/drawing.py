"""Pictures for pages: SVG that stands inside the page and takes its colours from it."""

from __future__ import annotations

import io
import re

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins that become the page's own colours, so that a picture is right by day and by night.
INK, MUTED, ACCENT, SURFACE, WARN = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--line)",
    ACCENT: "var(--accent)",
    SURFACE: "var(--surface)",
    WARN: "var(--warn)",
}
_BY_DAY = {INK: "#1a2230", MUTED: "#dde2ea", ACCENT: "#1f6feb", SURFACE: "#ffffff", WARN: "#b4450f"}


def short_tokens(value: float) -> str:
    """A number of tokens as an axis shows it."""
    return f"{value / 1024:g}k" if value >= 1024 and value % 256 == 0 else f"{value:,.0f}"


def new_figure(height: float = 3.0) -> tuple[Figure, Axes]:
    """An empty figure in the pages' style; `height` in inches of 5.8 in width."""
    figure = Figure(figsize=(5.8, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(which="both", colors=INK, color=MUTED)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color=MUTED, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def as_file(svg: str) -> str:
    """A picture of `as_svg` as a file that stands alone, in the pages' colours by day."""
    for color, variable in _VARIABLES.items():
        svg = svg.replace(variable, _BY_DAY[color])
    width, height = re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups()  # type: ignore[union-attr]
    # Twice as large as the points it is drawn in.
    size = f'width="{2 * float(width):g}" height="{2 * float(height):g}"'
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg", f"<svg {names} {size}", 1)


def as_svg(figure: Figure, description: str) -> str:
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
