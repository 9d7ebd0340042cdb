"""Which conversations are asked for, and what takes a rejected one's place, until exactly N are accepted.

Documents of one corpus and length range form a stratum. A stratum's quota is shared among the task
types, exact within one, and each type has its own documents there: the first of them are asked
about, and whenever one is rejected the next takes its place. So what is asked depends on the
documents, the seed and the outcomes alone, not on which reply came first, and no document is asked
about that is not needed. Where a stratum's documents of a type run out, others take over once
everything under way is settled: first those of the stratum that are left, then those of the others.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from longalign_core.errors import InputError
from longalign_core.instruct.assignment import assign_task_types, draw, split


@dataclass(frozen=True, slots=True)
class Entry:
    """What the schedule knows of a document.

    Attributes:
        row: Its place in the file.
        bucket: Shortest length of its length range, in tokens.
        num_tokens: 0 when not counted.
    """

    row: int
    id: str
    source: str
    language: str
    bucket: int
    num_tokens: int


class Kind(Protocol):
    """What the schedule knows of a task type."""

    @property
    def name(self) -> str:
        """Unique."""

    @property
    def share(self) -> float:
        """Weight among the types."""

    @property
    def corpora(self) -> tuple[str, ...] | None:
        """Those it is for; None for all."""

    @property
    def num_documents(self) -> int:
        """How many documents one conversation is about."""


@dataclass(frozen=True, slots=True)
class Place:
    """One conversation to be written.

    Attributes:
        entry: Its document.
        more: Further documents, where the task type wants several.
        task_type: Name of the type.
    """

    entry: Entry
    more: tuple[Entry, ...]
    task_type: str


Cell = tuple[str, int, str]
NOT_NEEDED = "not needed"
"""The reason of a document that was never asked about, as enough others gave a conversation."""


class Schedule:
    """Hands out places and takes their outcomes.

    Attributes:
        num_wanted: Conversations wanted.
        unsuited: Task types over several documents that a corpus and length range go without, because
            some of its documents find none that fit beside them.
    """

    def __init__(
        self, entries: Sequence[Entry], kinds: Sequence[Kind], *, num_wanted: int | None, max_tokens: int, seed: int
    ) -> None:
        """Share out the conversations.

        Args:
            entries: The documents.
            kinds: The task types.
            num_wanted: Conversations wanted; None asks once about every document and replaces nothing.
            max_tokens: Several documents of one conversation have at most so many tokens together.
            seed: Of the draw.

        Raises:
            InputError: A corpus has documents that no task type is for.
        """
        self._kinds = {kind.name: kind for kind in kinds}
        self._max_tokens, self._seed = max_tokens, seed
        self._replaces = num_wanted is not None
        self._entries = sorted(entries, key=lambda one: (draw(seed, "priority", one.id), one.id))
        self._of_corpus: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in self._entries:
            self._of_corpus[entry.source, entry.language].append(entry)
        self._reserve: dict[Cell, deque[Entry]] = {}
        self._quota: dict[Cell, int] = {}
        self._accepted: dict[Cell, int] = defaultdict(int)
        self._cell_of: dict[str, Cell] = {}
        self.unsuited: list[Cell] = []
        self._share_out(len(entries) if num_wanted is None else min(num_wanted, len(entries)))
        self.num_wanted = len(entries) if num_wanted is None else num_wanted
        self._under_way = 0

    def begin(self) -> list[Place]:
        """The places to begin with, in the order of the documents' rows."""
        places = [place for cell, quota in self._quota.items() for place in self._take(cell, quota)]
        return sorted(places, key=lambda place: place.entry.row)

    def settle(self, place: Place, *, accepted: bool) -> list[Place]:
        """Take the outcome of a place; returns those that are to be worked on because of it."""
        cell = self._cell_of.pop(place.entry.id)
        self._under_way -= 1
        self._accepted[cell] += accepted
        further = [] if accepted or not self._replaces else self._take(cell, 1)
        if not self._under_way and self._replaces:
            further = self._make_up()
        return further

    @property
    def num_accepted(self) -> int:
        """Places that were settled as accepted."""
        return sum(self._accepted.values())

    def spare(self) -> Iterable[Entry]:
        """Documents that were never asked about."""
        return (entry for cell in self._reserve.values() for entry in cell)

    def shortfalls(self) -> list[tuple[str, int, str, int, int]]:
        """Corpus, bucket, task type, wanted and accepted, where the two differ."""
        cells = sorted({*self._quota, *self._accepted})
        rows = [(*cell, self._quota.get(cell, 0), self._accepted[cell]) for cell in cells]
        return [row for row in rows if row[3] != row[4]]

    def _share_out(self, num_wanted: int) -> None:
        strata: dict[tuple[str, int], list[Entry]] = defaultdict(list)
        for entry in self._entries:
            strata[entry.source, entry.bucket].append(entry)
        names = {f"{source}\0{bucket}": (source, bucket) for source, bucket in sorted(strata)}
        sizes = {name: float(len(strata[stratum])) for name, stratum in names.items()}
        quotas = split(num_wanted, sizes) if sizes else {}
        owed: dict[str, float] = {}
        owed_spare: dict[str, float] = {}
        for name, stratum in names.items():
            entries = strata[stratum]
            weights = self._weights(stratum[0], entries)
            wanted = split(quotas[name], weights, owed)
            spare = split(len(entries) - quotas[name], weights, owed_spare)
            room = {kind: wanted[kind] + spare[kind] for kind in weights}
            assigned = assign_task_types([entry.id for entry in entries], room, self._seed)
            by_id = {entry.id: entry for entry in entries}
            for kind in weights:
                cell = (*stratum, kind)
                self._quota[cell] = wanted[kind]
                self._reserve[cell] = deque(by_id[one] for one, of in assigned.items() if of == kind)

    def _weights(self, source: str, entries: Sequence[Entry]) -> dict[str, float]:
        """Weights of the task types that every document of a stratum can be asked with."""
        weights = dict[str, float]()
        for name, kind in self._kinds.items():
            if kind.corpora is not None and source not in kind.corpora:
                continue
            if all(self._companions(entry, kind) is not None for entry in entries):
                weights[name] = kind.share
            else:
                self.unsuited.append((source, entries[0].bucket, name))
        if not weights:
            raise InputError(
                f"no task type can be asked about the documents of corpus {source!r}; give instruct.task_types one "
                "over a single document whose `corpora` is null or names it"
            )
        return weights

    def _companions(self, entry: Entry, kind: Kind) -> tuple[Entry, ...] | None:
        """Further documents of the same corpus and language that fit beside a document; None when too few do."""
        if kind.num_documents == 1:
            return ()
        others = self._of_corpus[entry.source, entry.language]
        start = draw(self._seed, "companions", entry.id) % len(others)
        room, chosen = self._max_tokens - entry.num_tokens, list[Entry]()
        for offset in range(len(others)):
            other = others[(start + offset) % len(others)]
            # Each takes no more than its part of the room, so that those still to come find theirs.
            if other.id != entry.id and other.num_tokens <= room // (kind.num_documents - 1 - len(chosen)):
                chosen.append(other)
                room -= other.num_tokens
                if len(chosen) == kind.num_documents - 1:
                    return tuple(chosen)
        return None

    def _take(self, cell: Cell, number: int) -> list[Place]:
        reserve = self._reserve[cell]
        return [self._place(reserve.popleft(), cell) for _ in range(min(number, len(reserve)))]

    def _place(self, entry: Entry, cell: Cell) -> Place:
        companions = self._companions(entry, self._kinds[cell[2]])
        assert companions is not None, "a type was shared out to documents that it fits"
        self._cell_of[entry.id] = cell
        self._under_way += 1
        return Place(entry, companions, cell[2])

    def _make_up(self) -> list[Place]:
        """Nothing is under way: put documents that are left in the places of those that ran out."""
        places: list[Place] = []
        missing = self.num_wanted - self.num_accepted
        for cell, quota in self._quota.items():
            # A type lends its documents to the others of its stratum, which all suit all of them.
            lenders = [one for one in self._reserve if one[:2] == cell[:2]]
            for _ in range(min(quota - self._accepted[cell], missing - len(places))):
                if reserve := max((self._reserve[one] for one in lenders), key=len):
                    places.append(self._place(reserve.popleft(), cell))
        while len(places) < missing:
            cell = max(self._reserve, key=lambda one: len(self._reserve[one]))
            if not (further := self._take(cell, 1)):
                break
            places += further
        return places
