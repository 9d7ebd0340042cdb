"""What `select` tells of a draw: for programs as JSON, for people as a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from longalign_core.corpora.selecting.funnel import Funnel, Lengths, RejectRow
from longalign_core.corpora.selecting.pictures import funnel_picture, length_picture
from longalign_core.corpora.selecting.selection import Cell, Selection
from longalign_core.corpora.selecting.shortfalls import Place, sentences, shortfalls
from longalign_core.page_frame import render_page
from longalign_core.records import SourceLicence

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_REALLOCATIONS_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionReport:
    """A draw with what led to it.

    Attributes:
        selection: The draw.
        min_tokens: Shortest length that is drawn.
        max_tokens: Longest.
        funnels: The way of each corpus.
        rejects: Of all stages so far.
        lengths: By corpus.
        licences: Of the drawn documents.
    """

    selection: Selection
    min_tokens: int
    max_tokens: int
    funnels: tuple[Funnel, ...]
    rejects: tuple[RejectRow, ...]
    lengths: Mapping[str, Lengths]
    licences: tuple[SourceLicence, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything but the pictures, as plain values."""
        selection = self.selection
        return {
            "wanted": selection.num_wanted,
            "drawn": len(selection.num_tokens),
            "missing": selection.num_missing,
            "eligible": selection.num_eligible,
            "tokens": sum(selection.num_tokens.values()),
            "summary": sentences(selection),
            "corpora": {name: asdict(one) for name, one in selection.by_source.items()},
            "cells": selection.table(),
            "shortfalls": [asdict(one) for one in shortfalls(selection)],
            "funnels": [asdict(one) for one in self.funnels],
            "rejects": [asdict(one) for one in self.rejects],
        }

    def as_html(self) -> str:
        """One page that asks nothing of the network, readable by day and by night."""
        selection = self.selection
        falls = shortfalls(selection)
        groups = list(dict.fromkeys(cell.group for cell in selection.cells))
        span = (self.min_tokens, self.max_tokens)
        return render_page(
            _TEMPLATE,
            report=self,
            num_drawn=len(selection.num_tokens),
            num_tokens=sum(selection.num_tokens.values()),
            summary=sentences(selection),
            tables=[_table([cell for cell in selection.cells if cell.group == group]) for group in groups],
            shares=any(one.wanted is not None for one in selection.by_source.values()),
            shortfalls=[(_named(one.place), one, [(_named(to.place), to) for to in one.given_to]) for one in falls][
                :_REALLOCATIONS_SHOWN
            ],
            num_shortfalls=len(falls),
            lengths=[(name, one, length_picture(name, one, span)) for name, one in self.lengths.items()],
            funnel=funnel_picture(self.funnels),
            rejects=[(stage, list(rows)) for stage, rows in groupby(self.rejects, lambda row: row.stage)],
            not_redistributable=[one.source for one in self.licences if one.redistributable is False],
            range=_range,
        )


def _table(cells: list[Cell]) -> tuple[str, list[Cell], list[str]]:
    """A language group, its cells, and the corpora that have or are asked for any of them."""
    return cells[0].group, cells, sorted({name for cell in cells for name in cell.by_source})


def _range(cell: Cell | Place) -> str:
    """A length range in words."""
    return f"{cell.min_tokens:,}–{cell.max_tokens:,}"


def _named(place: Place) -> str:
    parts = [place.corpus, None if place.group == "all" else place.group, f"{_range(place)} tokens"]
    return ", ".join(part for part in parts if part)
