"""The rows of a Posts.xml, plain, compressed or in a .7z, as they pass by."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from xml.parsers import expat

from longalign_core.corpora.cleaning import MAX_TEXT_BYTES
from longalign_core.corpora.markup.xml_prologue import HEAD_BYTES, why_refused
from longalign_core.corpora.unpacking import DAMAGE, open_unpacked, raise_unless_damaged, without_compression
from longalign_core.source_files import SourceFile

MAX_ROW_BYTES = 4 * MAX_TEXT_BYTES
"""Longest row that is looked at: a text, and what escapes make of it."""
_BLOCK_BYTES = 1 << 20
_ROW_START = re.compile(rb"[\r\n][ \t]*(?=<row[ \t\r\n])")
_TAIL_BYTES = 64
_UNDEFINED_ENTITY = expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY]

OnRow = Callable[[dict[str, str]], None]
OnDamage = Callable[[str, str], None]


class NotPostsError(Exception):
    """The file is not what Posts.xml is."""


class RowParser:
    """Calls `on_row` with the attributes of each row of what it is fed.

    A row that is no XML costs that row: `on_damage` is called with a reason and where it stands, and
    parsing goes on at the next line that begins with a row, as all of a dump's do.

    Raises:
        NotPostsError: From `feed` or `close`: the file is something else, or declares a document type.
    """

    def __init__(self, on_row: OnRow, on_damage: OnDamage) -> None:
        self._on_row, self._on_damage = on_row, on_damage
        self._head: bytes | None = b""
        self._parser = expat.ParserCreate()
        self._num_fed = self._num_before_parser = self._last_row_end = 0
        self._is_lost = self._is_complete = self._is_end_told = False
        self._tail = b""
        self._start(b"")

    def feed(self, data: bytes) -> None:
        """Go on with the next bytes of the file."""
        if self._head is not None:
            self._head += data
            if len(self._head) < HEAD_BYTES:
                return
            data = self._checked_head()
        view = memoryview(data)
        for begin in range(0, len(view), _BLOCK_BYTES):
            self._parse(bytes(view[begin : begin + _BLOCK_BYTES]))

    def close(self) -> bool:
        """Take the file for ended; returns whether it ended as it should."""
        if self._head is not None:
            self._parse(self._checked_head())
        return self._is_complete

    def _checked_head(self) -> bytes:
        head, self._head = self._head or b"", None
        if why := why_refused(head[:HEAD_BYTES], "posts"):
            raise NotPostsError(why)
        return head

    def _start(self, opening: bytes) -> None:
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._num_before_parser = self._num_fed - len(opening)
        self._parser.Parse(opening, False)

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        self._last_row_end = self._num_before_parser + self._parser.CurrentByteIndex
        if name == "row":
            self._on_row(attributes)

    def _end(self, name: str) -> None:
        self._is_complete |= name == "posts"

    def _parse(self, data: bytes) -> None:
        while data:
            if self._is_lost:
                data = self._found_again(data)
                continue
            begin = self._num_fed
            try:
                self._parser.Parse(data, False)
                self._num_fed += len(data)
                if self._num_fed - self._last_row_end <= MAX_ROW_BYTES:
                    return
                self._on_damage("too large", f"a row of more than {MAX_ROW_BYTES} bytes at byte {self._last_row_end}")
                data, self._tail = b"", b""
            except expat.ExpatError as error:
                if self._is_complete:
                    if not self._is_end_told:
                        self._on_damage("data behind the end", f"what follows byte {begin} is not read")
                    self._is_end_told = True
                    return
                at = self._num_before_parser + self._parser.ErrorByteIndex
                self._on_damage("broken row", f"{expat.ErrorString(error.code)} at byte {at}")
                data = data[max(0, at - begin) :]
                self._num_fed = max(begin, at)
                # A row that never closes is found out where the next one begins: that one is sound.
                is_next = at > max(begin, self._last_row_end) and error.code != _UNDEFINED_ENTITY
                self._tail = b"\n" if is_next and data.startswith(b"<row") else b""
            self._is_lost = True

    def _found_again(self, data: bytes) -> bytes:
        """What follows from the next row on; nothing where none begins in `data`."""
        searched = self._tail + data
        self._num_fed += len(data)
        if (found := _ROW_START.search(searched)) is None:
            self._tail = searched[-_TAIL_BYTES:]
            return b""
        rest = searched[found.end() :]
        self._num_fed -= len(rest)
        self._is_lost = False
        self._last_row_end = self._num_fed
        self._start(b"<posts>")
        return rest


def is_posts_file(path: str) -> bool:
    """Whether a file is, by its name, a Posts.xml or an archive that may hold one."""
    name = PurePosixPath(without_compression(path)).name.lower()
    return name == "posts.xml" or name.endswith(("-posts.xml", ".7z"))


def send_rows(file: SourceFile, on_row: OnRow, on_damage: OnDamage) -> str | None:
    """Send the rows of a file's Posts.xml on their way, whatever it is packed in.

    Returns:
        Path of the Posts.xml in the archive; None for a file that is none.
    """
    parser = RowParser(on_row, on_damage)
    try:
        if file.relative_path.lower().endswith(".7z"):
            return _send_member(file, parser, on_damage)
        _send_file(file, parser, on_damage)
    except NotPostsError as error:
        on_damage("not a Posts.xml", str(error))
    return None


def _send_file(file: SourceFile, parser: RowParser, on_damage: OnDamage) -> None:
    with open_unpacked(file) as stream:
        read_some: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        num_bytes = 0
        while data := _some(read_some):
            num_bytes += len(data)
            parser.feed(data)
    if not num_bytes or not parser.close():
        on_damage("truncated file", f"the file breaks off after {num_bytes} unpacked bytes, before its last row")


def _some(read_some: Callable[[int], bytes]) -> bytes:
    """The next bytes; none at the end or where damage begins."""
    try:
        return read_some(_BLOCK_BYTES)
    except DAMAGE as error:
        raise_unless_damaged(error)
        return b""


def _send_member(file: SourceFile, parser: RowParser, on_damage: OnDamage) -> str | None:
    from longalign_core.corpora.dumps.seven_zip import DamagedArchiveError, SevenZip

    with file.open() as stream:
        try:
            archive = SevenZip(stream)
        except DamagedArchiveError as error:
            on_damage("unreadable archive", str(error))
            return None
        for member in archive.members:
            if member.why_unsafe is not None:
                on_damage("unsafe archive member", f"{member.path}: {member.why_unsafe}")
        found = [one for one in archive.members if one.why_unsafe is None and _is_posts_member(one.path)]
        if not found:
            on_damage("other dump file", "there is no Posts.xml in it")
            return None
        for member in found[1:]:
            on_damage("second Posts.xml", f"{member.path}: one is read of an archive; unpack it to read the others")
        try:
            archive.send(found[0], parser.feed)
        except DamagedArchiveError as error:
            on_damage("damaged archive", f"{found[0].path}: {error}")
            return found[0].path
        if not parser.close():
            on_damage("truncated file", f"{found[0].path} breaks off before its last row")
        return found[0].path


def _is_posts_member(path: str) -> bool:
    return not path.lower().endswith(".7z") and is_posts_file(path)
