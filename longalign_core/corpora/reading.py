"""What readers and the `ingest` stage share: units of reading, raw documents, and where to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longalign_core.config.corpus_formats import CorpusConfig
from longalign_core.records import Reject
from longalign_core.source_files import SourceFile


@dataclass(slots=True)
class RawDocument:
    """A text as its reader found it, not cleaned yet. Not frozen: one is made for every record read.

    Attributes:
        name: What names the text in the corpus, whatever the machine and the order of reading.
        text: As found, mark-up of the format taken off.
        origin: File and position, for people.
        url: Where it stands on the web.
        title: Its title.
        licence: Its own licence; the corpus's where None.
        created: ISO 8601.
        is_code: Source code: no language is identified and no rules for prose apply.
    """

    name: str
    text: str
    origin: str
    url: str | None = None
    title: str | None = None
    licence: str | None = None
    created: str | None = None
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class Unit:
    """What is read by itself, one after another or elsewhere at the same time; usually one file.

    Attributes:
        name: Unique in the corpus and stable: a relative path, a repository's name.
        files: Its files, by path. None where the reader fetches by itself.
    """

    name: str
    files: tuple[SourceFile, ...]

    @property
    def num_bytes(self) -> int:
        """Stored size of its files."""
        return sum(file.size for file in self.files)


@dataclass(slots=True)
class Cursor:
    """How far the reading of a unit has come, so that a killed one goes on inside a file.

    A reader starts at `position` (0 at first), and raises it just before it yields the last record
    of what lies before the new position. A reader that cannot go on inside a unit leaves it alone.

    Attributes:
        position: In whatever the reader counts: lines, rows, pages, bytes.
        scratch: Folder of the unit alone, for what a reader must put aside. It survives a kill.
    """

    scratch: Path
    position: int = 0


UnitsFunction = Callable[[Sequence[SourceFile], Any], Iterator[Unit | Reject]]
ReadFunction = Callable[[Unit, Any, Cursor], Iterator[RawDocument | Reject]]


def one_per_file(files: Sequence[SourceFile], config: CorpusConfig) -> Iterator[Unit | Reject]:
    """Every file is a unit."""
    return (Unit(file.relative_path, (file,)) for file in files)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one native format.

    Attributes:
        read: `(unit, config, cursor)` to raw documents and rejects. Streams: memory holds one
            document, never a file. What cannot be used is a Reject with a reason that names file and
            position, and reading goes on. Names depend on relative paths and content alone. The same
            unit gives the same records in the same order, also when it goes on at a position.
        units: `(files, config)` to units, and rejects for files that belong to none.
    """

    read: ReadFunction
    units: UnitsFunction = one_per_file
