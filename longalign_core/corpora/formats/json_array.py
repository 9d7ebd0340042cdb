"""Files of one JSON array of objects (WuDaoCorpora), parsed as a stream: one document an object."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any, BinaryIO

import ijson

from longalign_core.config.corpus_formats import JsonArrayCorpus
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.record_fields import document_of_row, is_other_pile_set, pile_sets_left_out
from longalign_core.corpora.unpacking import DAMAGE, open_unpacked, raise_unless_damaged, without_compression
from longalign_core.records import Reject

MAX_OBJECT_BYTES = 2 * MAX_TEXT_BYTES
"""Largest object that is looked at: a text and what escapes make of it."""
MAX_TOKEN_BYTES = 8 * MAX_TEXT_BYTES
"""Longest string that is passed over; the parser holds it whole."""
MAX_DEPTH = 64
_BLOCK_BYTES = 64 << 10
NOT_UTF8 = "\U0010ffff"
"""Put where bytes are not UTF-8; a noncharacter, so no text has it. Then the object that holds one
is rejected, and not all that follows."""
codecs.register_error("longalign-mark", lambda error: (NOT_UTF8, getattr(error, "end", 0)))


def read(unit: Unit, config: JsonArrayCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read every object as one document; see `reading.Reader`. The position is the number of objects read.

    Objects before the position are parsed but not built, except to count those that `pile_set` leaves
    out. Of an array that breaks off or is broken, the objects before the damage are kept.
    """
    (file,) = unit.files
    path = file.relative_path
    if not without_compression(path.lower()).endswith(".json"):
        yield reject(config, path, "other file type", "expected .json, plain or compressed")
        return
    num_left_out = 0
    with open_unpacked(file) as stream:
        array = JsonArray(stream, cursor.position if config.pile_set is None else 0)
        for number, row in array.items():
            name = f"{path}#{number}"
            if isinstance(row, dict) and is_other_pile_set(row, config):
                num_left_out += 1
            elif number > cursor.position:
                cursor.position = number
                yield _read_item(row, name, config)
    if num_left_out:
        yield pile_sets_left_out(num_left_out, path, config)
    if array.fault:
        yield reject(config, path, *array.fault)


def _read_item(row: Any, name: str, config: JsonArrayCorpus) -> RawDocument | Reject:
    if isinstance(row, TooLarge):
        detail = f"the object has more than {MAX_OBJECT_BYTES} bytes or {MAX_DEPTH} levels"
        return reject(config, name, "too large", detail)
    made = document_of_row(row if isinstance(row, dict) else {}, name, name, config)
    if isinstance(made, RawDocument) and (NOT_UTF8 in made.text or NOT_UTF8 in (made.title or "")):
        return reject(config, name, "wrong encoding", "its text or title has bytes that are not UTF-8")
    return made


class TooLarge:
    """Stands for an item that was not built."""


class JsonArray:
    """The items of a JSON array.

    Attributes:
        fault: Reason and detail, once the array has turned out to be broken or to be none.
    """

    def __init__(self, stream: BinaryIO, num_skipped: int) -> None:
        self.fault: tuple[str, str] | None = None
        self._num_skipped = num_skipped
        self._stream = stream
        self._num_items = 0
        self._depth = 0
        self._builder: ijson.ObjectBuilder | None = None

    def items(self) -> Iterator[tuple[int, Any]]:
        """Items with their numbers, from 1; those to be skipped are left out."""
        events = ijson.sendable_list()
        parser = ijson.basic_parse_coro(events)
        item_bytes = token_bytes = 0
        for block in self._blocks():
            broken = None
            try:
                parser.send(block)
            except (ijson.JSONError, ValueError, ArithmeticError) as error:
                broken = error
            num_before = self._num_items
            token_bytes = 0 if events else token_bytes + len(block)
            yield from self._built(events)
            events.clear()
            item_bytes = item_bytes + len(block) if self._num_items == num_before else 0
            if item_bytes > MAX_OBJECT_BYTES:
                self._builder = None
            if self.fault is None and token_bytes > MAX_TOKEN_BYTES:
                self.fault = "broken array", f"object {self._num_items + 1} holds a string too long to pass over"
            if self.fault is None and broken is not None:
                message = " ".join(str(broken).split("\n")[0].split())[:200]
                self.fault = "broken array", f"after object {self._num_items}: {message}"
            if self.fault is not None:
                return
        try:
            parser.close()
        except ijson.JSONError:
            self._break_off()

    def _built(self, events: list[tuple[str, Any]]) -> Iterator[tuple[int, Any]]:
        for event, value in events:
            if self._depth == 0:
                if event != "start_array":
                    self.fault = "not a JSON array", "expected one array; for an object a line use format json_lines"
                    return
                self._depth = 1
                continue
            if event in ("end_map", "end_array"):
                self._depth -= 1
                if self._depth == 0:
                    continue
            elif self._depth == 1 and self._num_items >= self._num_skipped:
                self._builder = ijson.ObjectBuilder()
            if self._builder is not None:
                self._builder.event(event, value)
            if event in ("start_map", "start_array"):
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    self._builder = None
            elif self._depth == 1:
                self._num_items += 1
                if self._num_items > self._num_skipped:
                    yield self._num_items, TooLarge() if self._builder is None else self._builder.value
                self._builder = None

    def _break_off(self) -> None:
        self.fault = "truncated file", f"the array breaks off after object {self._num_items}"

    def _blocks(self) -> Iterator[bytes]:
        """The file as UTF-8 without a byte order mark, up to where it ends or damage begins."""
        decoder = codecs.getincrementaldecoder("utf-8-sig")("longalign-mark")
        # A buffered read() would drop what precedes the damage; not every stream has read1.
        read_some = getattr(self._stream, "read1", self._stream.read)
        while True:
            try:
                data = read_some(_BLOCK_BYTES)
            except DAMAGE as error:
                raise_unless_damaged(error)
                self._break_off()
                return
            text = decoder.decode(data, final=not data).replace("\0", NOT_UTF8)
            if text:
                yield text.encode()
            if not data:
                return
