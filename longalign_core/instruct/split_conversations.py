"""ShareGPT's split conversations put together again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from longalign_core.records import Message

# FastChat's splitter, which the published split export came out of, names a part by the number of its first
# turn (fastchat/data/split_long_conversation.py); others count the parts.
_PART = re.compile(r"(?P<conversation>.+)_(?P<number>\d{1,9})")


class SplitConversations:
    """Parts put aside in a file until all of a set are read, as they need not follow one another.

    Memory holds a hundred bytes a part.

    Attributes:
        num_joined: Parts that were put behind another one.
    """

    def __init__(self, spool: BinaryIO) -> None:
        self._spool = spool
        self._places: dict[str, dict[int, int]] = {}
        self.num_joined = 0

    def take(self, row: Any, messages: list[Message]) -> bool:
        """Put a row's messages aside if its id is one of a part that has not come before."""
        name = row.get("id")
        match = _PART.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            return False
        places = self._places.setdefault(match["conversation"], {})
        number = int(match["number"])
        if number in places:
            return False  # it may well differ; duplicates are found by content
        places[number] = self._spool.seek(0, 2)
        model = row.get("model")
        about = [model if isinstance(model, str) else None, messages]
        self._spool.write(orjson.dumps(about, option=orjson.OPT_APPEND_NEWLINE))
        return True

    def joined(self) -> Iterator[tuple[str, str | None, list[Message]]]:
        """Name, model and messages of each conversation; after a gap in the parts a new one begins.

        A part goes on where the one before it ended: its number is that of its first turn, or one more than
        the last part's.
        """
        for conversation, places in self._places.items():
            begun: tuple[str, str | None, list[Message]] | None = None
            start = last = 0
            for number, place in sorted(places.items()):
                self._spool.seek(place)
                model, rows = orjson.loads(self._spool.readline())
                messages = [Message(**row) for row in rows]
                if begun and number in (start + len(begun[2]), last + 1):
                    begun[2].extend(messages)
                    self.num_joined += 1
                else:
                    if begun:
                        yield begun
                    begun, start = (f"{conversation}_{number}", model, messages), number
                last = number
            if begun:
                yield begun
