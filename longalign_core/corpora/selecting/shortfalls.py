"""Where the draw fell short of what was wanted, and what was drawn in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from longalign_core.corpora.selecting.selection import Cell, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A cell of the draw.

    Attributes:
        group: Language group.
        min_tokens: Shortest length in the range.
        max_tokens: Longest length in the range.
        corpus: None where corpora are taken as they come.
    """

    group: str
    min_tokens: int
    max_tokens: int
    corpus: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gift:
    """Documents drawn at a place in the stead of others."""

    place: Place
    num_documents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """A place that gave fewer documents than were wanted of it.

    Attributes:
        place: Where.
        wanted: Documents asked for.
        eligible: Documents there are; where they are more than were drawn, a wish that comes before
            corpora (number, language, even lengths) took the places.
        drawn: Documents drawn.
        given_to: Where the missing ones were drawn instead.
        lost: Of the missing ones, those that were drawn nowhere.
    """

    place: Place
    wanted: int
    eligible: int
    drawn: int
    given_to: tuple[Gift, ...]
    lost: int


def shortfalls(selection: Selection) -> tuple[Shortfall, ...]:
    """Every place that fell short, in the order of the cells.

    Its places are counted as given to the nearest ones that gave more than was wanted: of the same
    language and length, else of the same language and corpus, else of the same language, else any.
    """
    rows = [row for cell in selection.cells for row in _rows(cell)]
    surplus = {place: drawn - wanted for place, wanted, _, drawn in rows if drawn > wanted}
    missing = {place: wanted - drawn for place, wanted, _, drawn in rows if drawn < wanted}
    gifts: dict[Place, dict[Place, int]] = {place: {} for place in missing}
    for is_near in _NEARNESS:
        for place in missing:
            for other in surplus:
                number = min(missing[place], surplus[other])
                if number and is_near(place, other):
                    gifts[place][other] = gifts[place].get(other, 0) + number
                    missing[place] -= number
                    surplus[other] -= number
    return tuple(
        Shortfall(
            place=place,
            wanted=wanted,
            eligible=eligible,
            drawn=drawn,
            given_to=tuple(Gift(place=other, num_documents=number) for other, number in gifts[place].items()),
            lost=missing[place],
        )
        for place, wanted, eligible, drawn in rows
        if place in missing
    )


def sentences(selection: Selection) -> list[str]:
    """What a person should know of the draw: what is missing, by number, language, length and corpus."""
    lines = []
    if selection.num_missing:
        lines.append(
            f"{selection.num_wanted:,} documents were wanted and {len(selection.num_tokens):,} drawn: "
            f"{selection.num_missing:,} are missing, as no more can be drawn."
        )
    groups = list(dict.fromkeys(cell.group for cell in selection.cells))
    for group in groups if len(groups) > 1 else ():
        cells = [cell for cell in selection.cells if cell.group == group]
        lines += _sentence(f"In the language group {group}", _sums(cells))
    for cell in selection.cells:
        of = "" if cell.group == "all" else f" of the language group {cell.group}"
        where = f"From {cell.min_tokens:,} to {cell.max_tokens:,} tokens{of}"
        lines += _sentence(where, (cell.wanted, cell.eligible, cell.drawn))
    for name, one in selection.by_source.items():
        if one.wanted is not None:
            lines += _sentence(f"Of the corpus {name}", (one.wanted, one.eligible, one.drawn))
    return lines or ["Every number that was wanted was drawn."]


def _sentence(where: str, numbers: tuple[int, int, int]) -> list[str]:
    wanted, eligible, drawn = numbers
    if drawn == wanted:
        return []
    line = f"{where}, {wanted:,} were wanted and {drawn:,} drawn"
    if drawn > wanted:
        return [f"{line}, {drawn - wanted:,} of them in the stead of others."]
    if eligible > drawn:
        return [f"{line}, of {eligible:,} that could be: their languages or lengths had no more places."]
    return [f"{line}, all there are; the rest, {wanted - drawn:,}, went to others or stays empty."]


def _sums(cells: Sequence[Cell]) -> tuple[int, int, int]:
    return sum(one.wanted for one in cells), sum(one.eligible for one in cells), sum(one.drawn for one in cells)


def _rows(cell: Cell) -> list[tuple[Place, int, int, int]]:
    """(place, wanted, eligible, drawn) of a cell: by corpus where corpora have shares."""
    whole = Place(group=cell.group, min_tokens=cell.min_tokens, max_tokens=cell.max_tokens, corpus=None)
    if all(one.wanted is None for one in cell.by_source.values()):
        return [(whole, cell.wanted, cell.eligible, cell.drawn)]
    return [
        (
            Place(group=cell.group, min_tokens=cell.min_tokens, max_tokens=cell.max_tokens, corpus=name),
            one.wanted or 0,
            one.eligible,
            one.drawn,
        )
        for name, one in cell.by_source.items()
    ]


_NEARNESS: tuple[Callable[[Place, Place], bool], ...] = (
    lambda one, other: (one.group, one.min_tokens) == (other.group, other.min_tokens),
    lambda one, other: (one.group, one.corpus) == (other.group, other.corpus) and one.corpus is not None,
    lambda one, other: one.group == other.group,
    lambda one, other: True,
)
