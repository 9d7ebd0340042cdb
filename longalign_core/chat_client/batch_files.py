"""Files of parts: the requests as they were asked, for later, and the file that is sent to the provider."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import BinaryIO

from longalign_core.chat_client.batch_state import BatchState, PackedRequest
from longalign_core.chat_client.batch_wire import BatchWire, Part
from longalign_core.chat_client.calls import ChatRequest
from longalign_core.errors import StoreError
from longalign_core.records import Message

_FIELDS = tuple(field.name for field in fields(ChatRequest) if field.name != "messages")


def write_request(file: BinaryIO, request: ChatRequest) -> tuple[int, int]:
    """Append a request to a part's file; its place and size in bytes."""
    place = file.tell()
    values = {name: getattr(request, name) for name in _FIELDS}
    values["messages"] = [asdict(message) for message in request.messages]
    line = json.dumps(values, separators=(",", ":")).encode() + b"\n"
    file.write(line)
    return place, len(line)


def read_request(file: BinaryIO, packed: PackedRequest) -> ChatRequest:
    """A request as it was packed.

    Raises:
        StoreError: The file was changed.
    """
    file.seek(packed.place)
    try:
        values = json.loads(file.read(packed.size))
        messages = tuple(Message(**message) for message in values.pop("messages"))
        request = ChatRequest(messages=messages, **values)
    except (ValueError, TypeError, KeyError):
        request = None
    if request is None or request.key != packed.key:
        raise StoreError(
            f"{Path(file.name).name} in the folder of the batches was changed since it was submitted; restore it"
        )
    return request


def write_body(state: BatchState, wire: BatchWire, part: Part) -> None:
    """Write the file that is sent for a part, a request at a time."""
    with state.file_of(part.name).open("rb") as requests, state.body_of(part.name).open("wb") as body:
        body.write(wire.frame.opening)
        for number, packed in enumerate(state.requests_of(part.name)):
            if number:
                body.write(wire.frame.separator)
            body.write(wire.line_of(read_request(requests, packed)))
        body.write(wire.frame.closing)


def flush_to_disk(file: BinaryIO) -> None:
    """Have what was written survive a power cut."""
    file.flush()
    os.fsync(file.fileno())
