"""Drawing and ordering conversations by seed, without holding their texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

import orjson

from longalign_core.records import Conversation, Message, Reject


class Draw:
    """Conversations put aside in a file by group, to be drawn and put in order.

    What is drawn and in which order depends on the seed and on ids alone. A conversation whose messages
    came before, in its own group or another, is a duplicate. Memory holds a few hundred bytes a conversation.
    """

    def __init__(self, spool: BinaryIO, seed: int) -> None:
        self._spool = spool
        self._seed = seed
        self._size = 0
        self._seen: dict[bytes, str] = {}
        self._groups: dict[str, dict[str, tuple[int, str]]] = {}
        self._drawn: list[tuple[str, int]] = []

    def add(self, group: str, conversations: Iterable[Conversation | Reject]) -> Iterator[Reject]:
        """Put a group's conversations aside.

        Yields:
            The rejects among them, and conversations that came before.
        """
        places = self._groups.setdefault(group, {})
        for conversation in conversations:
            if isinstance(conversation, Reject):
                yield conversation
                continue
            content = hashlib.blake2b(orjson.dumps(conversation.messages), digest_size=16).digest()
            if (before := self._seen.get(content)) is not None:
                detail = f"the same conversation came before in {before}"
                yield _reject(conversation.id, conversation.source, "duplicate", detail)
            elif conversation.id in places:
                yield _reject(conversation.id, conversation.source, "duplicate id", "another one has the same id")
            else:
                self._seen[content] = group
                line = orjson.dumps(conversation, option=orjson.OPT_APPEND_NEWLINE)
                self._spool.write(line)
                places[conversation.id] = (self._size, conversation.source)
                self._size += len(line)

    def num_available(self, group: str) -> int:
        """How many of a group can be drawn."""
        return len(self._groups[group])

    def draw(self, wanted: Mapping[str, int]) -> Iterator[Reject]:
        """Draw so many of each group, or all of it where it has no more.

        Yields:
            Those that were not drawn.
        """
        for group, most in wanted.items():
            places = self._groups[group]
            ids = sorted(places, key=lambda one: _priority(self._seed, "draw", one))
            self._drawn += [(one, places[one][0]) for one in ids[:most]]
            for one in ids[most:]:
                yield _reject(one, places[one][1], "not drawn", f"{most} of {len(ids)} were wanted")

    def shuffled(self) -> Iterator[Conversation]:
        """What was drawn, in the seed's order."""
        self._spool.flush()
        for _, place in sorted(self._drawn, key=lambda one: _priority(self._seed, "order", one[0])):
            self._spool.seek(place)
            row = orjson.loads(self._spool.readline())
            row["messages"] = tuple(Message(**message) for message in row["messages"])
            row["more_documents"], row["evidence"] = tuple(row["more_documents"]), tuple(row["evidence"])
            yield Conversation(**row)


def _reject(record: str, source: str, reason: str, detail: str) -> Reject:
    return Reject(id=record, source=source, stage="mixture", reason=reason, detail=detail)


def _priority(seed: int, purpose: str, conversation_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{purpose}\n{conversation_id}".encode()).digest()
