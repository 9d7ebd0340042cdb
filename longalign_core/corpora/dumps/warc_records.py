"""WARC archives as records with byte offsets, going on behind damage."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, cast

from longalign_core.corpora.unpacking import DAMAGE, raise_unless_damaged

MAX_RECORD_BYTES = 16 << 20
"""Largest record that is loaded. CommonCrawl cuts pages off at 1 MiB."""

_GZIP_MEMBER = b"\x1f\x8b\x08"
_RECORD_STARTS = re.compile(re.escape(_GZIP_MEMBER) + rb"[\0-\x1f]|WARC/1\.[01]\r?\n[A-Za-z]")
_LONGEST_START = 12
_MAX_FALSE_STARTS = 1_000
"""Places behind damage that look like a record and are none, after which the rest is given up: each
costs up to a record's size to find out."""
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_MAX_HEADER_BYTES = 64 << 10
_HEAD_BYTES = 512
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRecord:
    """One record of an archive, of any type, or a place where it is damaged.

    Attributes:
        start: Offset of its first byte; rises from record to record.
        kind: Its WARC-Type; "" where the archive is damaged.
        url: WARC-Target-URI.
        date: WARC-Date.
        media_type: What its block is.
        payload_type: What the crawler took the payload for.
        block: Its bytes; None where it has more than MAX_RECORD_BYTES, and where the archive is damaged.
        is_last: Of damage: whether no readable record follows.
    """

    start: int
    kind: str = ""
    url: str | None = None
    date: str | None = None
    media_type: str | None = None
    payload_type: str | None = None
    block: bytes | None = None
    is_last: bool = False


class _Unpacked(gzip.GzipFile):
    """Gives what lies before damage, where the full size asked for would meet it."""

    def read(self, size: int | None = -1) -> bytes:
        return self.read1(-1 if size is None else size)


def seekable_archive(stored: BinaryIO) -> BinaryIO:
    """A stream with records at their offsets.

    That is the stored bytes, plain or, as is the custom, compressed record by record; else the unpacked ones.
    """
    from fastwarc.warc import ArchiveIterator

    if stored.read(len(_GZIP_MEMBER)) != _GZIP_MEMBER:
        return stored
    stored.seek(0)
    second = None
    try:
        records = ArchiveIterator(stored, parse_http=False)
        next(records, None)
        second = next(records, None)
    except DAMAGE as error:  # told where it is read
        raise_unless_damaged(error)
    if second is None:
        return stored
    stored.seek(second.stream_pos)
    if stored.read(len(_GZIP_MEMBER)) == _GZIP_MEMBER:
        return stored
    stored.seek(0)
    return cast(BinaryIO, _Unpacked(fileobj=stored, mode="rb"))


def archive_records(stream: BinaryIO, start: int) -> Iterator[ArchiveRecord]:
    """Yield the records from an offset on, damage among them; behind it, reading goes on.

    FastWARC takes the end of a truncated archive for its end, so lengths are compared here.
    """
    going_on: int | None = start
    while going_on is not None:
        last: int | None = None
        damaged: int | None = None
        try:
            for record in _readable_records(stream, going_on):
                damaged = record.start if not record.kind else None
                if damaged is not None:
                    break
                last = record.start
                yield record
        except DAMAGE as error:
            raise_unless_damaged(error)
            damaged = going_on if last is None else None
        if damaged is None:
            damaged = _rest(stream, going_on, last)
        if damaged is None:
            return
        going_on = _next_readable(stream, damaged + 1)
        yield ArchiveRecord(start=damaged, is_last=going_on is None)


def _readable_records(stream: BinaryIO, start: int) -> Iterator[ArchiveRecord]:
    """Records up to the first whose block is damaged, which comes without a kind.

    Raises:
        OSError: The header of a record is damaged.
    """
    from fastwarc.warc import ArchiveIterator

    stream.seek(start)
    for record in ArchiveIterator(stream, parse_http=False):
        position, length, headers = record.stream_pos, record.content_length, record.headers
        try:
            block = record.reader.read() if length <= MAX_RECORD_BYTES else None
            found = record.consume() if block is None else len(block)
        except DAMAGE as error:
            raise_unless_damaged(error)
            found = -1
        if found < length or "Content-Length" not in headers:
            yield ArchiveRecord(start=position)
            return
        yield ArchiveRecord(
            start=position,
            kind=(headers.get("WARC-Type") or "unknown").lower(),
            url=(headers.get("WARC-Target-URI") or "").strip("<>") or None,
            date=headers.get("WARC-Date"),
            media_type=headers.get("Content-Type"),
            payload_type=headers.get("WARC-Identified-Payload-Type"),
            block=block,
        )


def _rest(stream: BinaryIO, start: int, last: int | None) -> int | None:
    """Where bytes lie behind the last record that was read; None at the end of a whole archive."""
    try:
        end = start if last is None else _record_end(stream, last)
        if end is None:
            return cast(int, last) + 1
        stream.seek(end)
        return end if stream.read(_BLOCK_BYTES).strip(b"\r\n\0") else None
    except DAMAGE as error:
        raise_unless_damaged(error)
        return start if last is None else last + 1


def _record_end(stream: BinaryIO, start: int) -> int | None:
    """Offset behind a record; None where the file ends before it."""
    stream.seek(start)
    data = stream.read(_MAX_HEADER_BYTES)
    if not data.startswith(_GZIP_MEMBER):
        header = _HEADER_END.search(data)
        length = re.search(rb"^content-length:\s*(\d+)", data, re.I | re.M)
        return start + header.end() + int(length[1]) if header and length else None
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    end = start
    while data:
        end += len(data)
        member.decompress(data)
        if member.eof:
            return end - len(member.unused_data)
        data = stream.read(_MAX_HEADER_BYTES)
    return None


def _next_readable(stream: BinaryIO, start: int) -> int | None:
    """Offset of the first record that can be read."""
    try:
        for candidate in islice(_candidates(stream, start), _MAX_FALSE_STARTS):
            try:
                record = next(_readable_records(stream, candidate), None)
            except DAMAGE as error:
                raise_unless_damaged(error)
            else:
                if record is not None and record.kind:
                    return candidate
    except DAMAGE as error:
        raise_unless_damaged(error)
    return None


def _candidates(stream: BinaryIO, start: int) -> Iterator[int]:
    """Offsets at which a record may start. The stream may be moved between two of them."""
    while True:
        stream.seek(start)
        data = stream.read(_BLOCK_BYTES)
        for match in _RECORD_STARTS.finditer(data):
            if match[0].startswith(b"W") or _unpacks_to_record(data[match.start() : match.start() + _HEAD_BYTES]):
                yield start + match.start()
        if len(data) <= _LONGEST_START:
            return
        start += len(data) - _LONGEST_START


def _unpacks_to_record(head: bytes) -> bool:
    """Whether the first bytes of a gzip member are those of a record. Too few bytes may always be."""
    try:
        return b"WARC/".startswith(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 5))
    except zlib.error:
        return False
