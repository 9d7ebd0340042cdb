"""The mixture: long conversations and instruction sets, drawn and shuffled by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from longalign_core.config.instruct import InstructionSet, MixtureConfig
from longalign_core.errors import DataError
from longalign_core.records import Conversation, Message, Reject, Role

MAX_ARRAY_BYTES = 2 << 30
"""Largest JSON array that is read: unlike lines, it has to be held in memory as a whole."""

_SUITE_SIZES = {"0k": 0, "5k": 5_000, "10k": 10_000, "longalpaca-12k": 0, "all": None}
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}


@dataclass(slots=True)
class DroppedTurns:
    """Turns taken out of conversations that were kept.

    Attributes:
        empty: Assistant turns without text, each with the question it left unanswered.
        unanswered: User turns at a conversation's end.
    """

    empty: int = 0
    unanswered: int = 0


def num_long_wanted(config: MixtureConfig) -> int | None:
    """How many long conversations the suite takes; None for all."""
    return _SUITE_SIZES[config.suite]


def read_instructions(
    stream: BinaryIO, file_name: str, one_set: InstructionSet, dropped: DroppedTurns
) -> Iterator[Conversation | Reject]:
    """Conversations of a file of an instruction set: JSON lines, or one JSON array.

    Forms: `messages` of role and content; ShareGPT's `conversations` of `from` and `value`; Alpaca's
    `instruction`, `input`, `output`. Assistant turns without text go, with their question, and so
    does a last question without an answer. Ids are made from the content, so that they do not
    depend on files or order.

    Args:
        stream: The file, unpacked.
        file_name: What rejects call it.
        one_set: The set it belongs to.
        dropped: Counts what is taken out of conversations that are kept.

    Raises:
        DataError: The file is one JSON array that is broken or too large.
    """
    for number, row in _rows(stream, file_name):
        try:
            if isinstance(row, _UnusableError):
                raise row
            messages = _alternating(_messages_of(row), dropped)
        except _UnusableError as error:
            yield _reject(f"{one_set.name}:{file_name}#{number}", one_set.name, error.reason, error.detail)
            continue
        yield Conversation(
            id=f"{one_set.name}:{_digest(messages)}",
            messages=messages,
            source=one_set.name,
            task_type="chat",
            language=one_set.language,
            model=row["model"] if isinstance(row.get("model"), str) else None,
            licence=one_set.licence,
        )


class Draw:
    """Conversations put aside in a file, to be drawn and put in order without holding their texts.

    What is drawn and in which order depends on the seed and on ids alone. Memory holds a few
    hundred bytes a conversation.
    """

    def __init__(self, spool: BinaryIO, seed: int) -> None:
        self._spool = spool
        self._seed = seed
        self._size = 0
        self._places: dict[str, int] = {}
        self._drawn: list[str] = []

    def take(self, conversations: Iterator[Conversation | Reject], most: int | None) -> Iterator[Reject]:
        """Draw at most so many of one set of conversations; None takes all.

        Yields:
            The rejects among them, conversations seen before, and those that were not drawn.
        """
        sources: dict[str, str] = {}
        for conversation in conversations:
            if isinstance(conversation, Reject):
                yield conversation
            elif conversation.id in self._places:
                yield _reject(conversation.id, conversation.source, "duplicate", "the same conversation came before")
            else:
                line = orjson.dumps(conversation, option=orjson.OPT_APPEND_NEWLINE)
                self._spool.write(line)
                self._places[conversation.id] = self._size
                self._size += len(line)
                sources[conversation.id] = conversation.source
        ids = sorted(sources, key=lambda one: _priority(self._seed, "draw", one))
        self._drawn += ids[:most]
        for one in ids[len(ids) if most is None else most :]:
            yield _reject(one, sources[one], "not drawn", f"{most} of {len(ids)} were wanted")

    @property
    def num_drawn(self) -> int:
        """Conversations drawn so far."""
        return len(self._drawn)

    def shuffled(self) -> Iterator[Conversation]:
        """What was drawn, in the seed's order."""
        self._spool.flush()
        for one in sorted(self._drawn, key=lambda one: _priority(self._seed, "order", one)):
            self._spool.seek(self._places[one])
            row = orjson.loads(self._spool.readline())
            yield Conversation(**{**row, "messages": tuple(Message(**message) for message in row["messages"])})


class _UnusableError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def _rows(stream: BinaryIO, file_name: str) -> Iterator[tuple[int, Any]]:
    """Number and value of each record; an error in place of a value that is not JSON."""
    for number, line in enumerate(stream, start=1):
        if number == 1 and line.lstrip().startswith(b"["):
            yield from enumerate(_array(line + stream.read(MAX_ARRAY_BYTES), file_name), start=1)
            return
        if line.isspace():
            continue
        try:
            yield number, orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, _UnusableError("broken line", f"not JSON: {error.msg} at character {error.pos}")


def _array(data: bytes, file_name: str) -> list[Any]:
    if len(data) > MAX_ARRAY_BYTES:
        raise DataError(f"{file_name} is one JSON array of more than {MAX_ARRAY_BYTES} bytes; write it as JSON lines")
    try:
        rows: list[Any] = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DataError(
            f"{file_name} begins as a JSON array but is not one ({error.msg} at character {error.pos}); "
            "give it whole, or as JSON lines"
        ) from None
    return rows


def _messages_of(row: Any) -> list[Message]:
    if isinstance(row, dict):
        if isinstance(turns := row.get("messages"), list):
            return [_message(turn, "role", "content") for turn in turns]
        if isinstance(turns := row.get("conversations"), list):
            return [_message(turn, "from", "value") for turn in turns]
        if isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str):
            more = row.get("input")
            question = (
                f"{row['instruction']}\n\n{more}" if isinstance(more, str) and more.strip() else row["instruction"]
            )
            return [Message(role="user", content=question), Message(role="assistant", content=row["output"])]
    raise _UnusableError(
        "unknown form", "expected messages, ShareGPT's conversations, or Alpaca's instruction and output"
    )


def _message(turn: Any, role_field: str, text_field: str) -> Message:
    if not isinstance(turn, dict) or not isinstance(turn.get(text_field), str):
        raise _UnusableError("turn without text", f"expected a string {text_field!r} in every turn")
    name = turn.get(role_field)
    role = _ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise _UnusableError("unknown role", f"{name!r}; known are {', '.join(_ROLES)}")
    return Message(role=role, content=turn[text_field])


def _alternating(messages: list[Message], dropped: DroppedTurns) -> tuple[Message, ...]:
    """The conversation: an optional system message, then user and assistant in turn, the last the assistant's."""
    has_system = bool(messages) and messages[0].role == "system"
    head, turns = messages[:has_system], messages[has_system:]
    roles = [turn.role for turn in turns]
    if "assistant" not in roles:
        raise _UnusableError("no assistant turn", f"roles: {' '.join(roles)}"[:200])
    if any(role != ("assistant" if place % 2 else "user") for place, role in enumerate(roles)):
        raise _UnusableError("does not alternate", f"roles: {' '.join(roles)}"[:200])
    pairs = [(turns[place], turns[place + 1]) for place in range(0, len(turns) - 1, 2)]
    answered = [pair for pair in pairs if pair[1].content.strip()]
    if not answered:
        raise _UnusableError("no assistant turn", "every assistant turn is empty")
    if not all(question.content.strip() for question, _ in answered):
        raise _UnusableError("empty user turn", "an answer to nothing")
    dropped.empty += len(pairs) - len(answered)
    dropped.unanswered += len(turns) % 2
    return (*(one for one in head if one.content.strip()), *(turn for pair in answered for turn in pair))


def _reject(record: str, source: str, reason: str, detail: str) -> Reject:
    return Reject(id=record, source=source, stage="mixture", reason=reason, detail=detail)


def _digest(messages: tuple[Message, ...]) -> str:
    return hashlib.sha256(orjson.dumps(messages)).hexdigest()[:16]


def _priority(seed: int, purpose: str, conversation_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{purpose}\n{conversation_id}".encode()).digest()
