"""What every HTML page shares: its look, and escaping of all that is not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

_STYLE = Path(__file__).with_name("page_style.css")


def render_page(template: Path, **values: Any) -> str:
    """Fill a page's template; every value is escaped unless the template says `safe`.

    Args:
        template: Jinja file that puts `page_style` into its head.
        values: What it shows.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["score"] = score
    style = _STYLE.read_text(encoding="utf-8")
    return environment.from_string(template.read_text(encoding="utf-8")).render(page_style=style, **values)


def score(value: float | None) -> str:
    """A score with two digits; "unscored" where there is none."""
    return "unscored" if value is None else f"{value:.2f}"


def _number(value: int) -> str:
    return f"{value:,}"
