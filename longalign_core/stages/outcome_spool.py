"""Outcomes put aside on disk as they come, and read back in the order of the documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import orjson

from longalign_core.records import Conversation, Message, Reject


class OutcomeSpool:
    """Memory holds a number an outcome. A context manager; leaving it deletes the file.

    Attributes:
        num_rejects: Of what was put aside so far.
    """

    def __init__(self, path: Path) -> None:
        """Start an empty spool; what a killed run left under its name goes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("w+b")
        self._offsets: dict[int, int] = {}
        self.num_rejects = 0

    def __enter__(self) -> OutcomeSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def keep(self, row: int, outcome: Conversation | Reject) -> None:
        """Put the one outcome of a row aside."""
        assert row not in self._offsets, "a document has one outcome"
        self._offsets[row] = self._file.seek(0, 2)
        self.num_rejects += isinstance(outcome, Reject)
        self._file.write(orjson.dumps([isinstance(outcome, Reject), outcome], option=orjson.OPT_APPEND_NEWLINE))

    def in_order(self) -> Iterator[Conversation | Reject]:
        """All of them, by row."""
        for row in sorted(self._offsets):
            self._file.seek(self._offsets[row])
            is_reject, values = orjson.loads(self._file.readline())
            if is_reject:
                yield Reject(**values)
                continue
            messages = tuple(Message(**message) for message in values["messages"])
            tuples = {name: tuple(values[name]) for name in ("more_documents", "evidence")}
            yield Conversation(**{**values, **tuples, "messages": messages})
