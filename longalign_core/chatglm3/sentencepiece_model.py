"""A sentencepiece model file, read without the sentencepiece package: the few fields that a conversion needs.

The file is one protobuf message; field numbers are those of sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from longalign_core.errors import InputError

_BPE = 2
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


class PieceKind(IntEnum):
    """What a piece stands for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece; its id is its place in the list."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """A byte-pair model.

    Attributes:
        pieces: By id.
        has_bytes: Characters that no piece holds become their bytes.
        charsmap: Compiled normalisation of characters; empty for none.
        adds_space: A text gets a space in front.
        squeezes_spaces: Spaces at the ends, and all but one of several, are left out.
    """

    pieces: tuple[Piece, ...]
    has_bytes: bool
    charsmap: bytes
    adds_space: bool
    squeezes_spaces: bool


def read_sentencepiece(file: Path) -> SentencePieceModel:
    """Read a model file.

    Raises:
        InputError: It is not there, or no sentencepiece model of byte pairs.
    """
    if not file.is_file():
        raise InputError(f"{file} is not there; download the whole folder of ChatGLM3 (others are not converted)")
    try:
        fields = list(_fields(file.read_bytes()))
        pieces = tuple(_piece(value) for number, value in fields if number == 1)
        trainer = dict(_fields(_last_bytes(fields, 2)))
        normalizer = dict(_fields(_last_bytes(fields, 3)))
        is_bpe = trainer.get(3) == _BPE and bool(pieces)
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise InputError(f"{file} is no sentencepiece model ({error}); give the file as it was published") from error
    if not is_bpe:
        raise InputError(f"{file} is no sentencepiece model of byte pairs, as ChatGLM3's is; give its own tokenizer")
    charsmap = normalizer.get(2, b"")
    assert isinstance(charsmap, bytes)
    return SentencePieceModel(
        pieces=pieces,
        has_bytes=any(piece.kind is PieceKind.BYTE for piece in pieces),
        charsmap=charsmap,
        adds_space=bool(normalizer.get(3, True)),
        squeezes_spaces=bool(normalizer.get(4, True)),
    )


def _piece(message: int | bytes) -> Piece:
    fields = dict(_fields(message))
    text, score, kind = fields.get(1, b""), fields.get(2, b"\0" * 4), fields.get(3, PieceKind.NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
        raise ValueError("a piece has fields of other types")
    return Piece(text.decode("utf-8"), struct.unpack("<f", score)[0], PieceKind(kind))


def _last_bytes(fields: list[tuple[int, int | bytes]], wanted: int) -> bytes:
    found = [value for number, value in fields if number == wanted and isinstance(value, bytes)]
    return found[-1] if found else b""


def _fields(message: int | bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message: numbers as int, everything else as its bytes."""
    if not isinstance(message, bytes):
        raise ValueError("a number stands where a message should")
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_FIXED_32, _FIXED_64):
            size = 4 if kind == _FIXED_32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {place}")
        if place + size > len(message):
            raise ValueError(f"it breaks off at byte {place}")
        yield number, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
