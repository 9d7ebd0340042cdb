"""Requests as they are kept: JSON values, and bytes that hold any Python string.

Texts of documents and models may hold lone surrogates, which UTF-8 has no form for, and NUL. Here
both survive: strings are encoded with surrogates passed through, JSON without escapes for them
(escapes would join two lone ones to one character).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from backports import zstd

from longalign_core.chat_client.calls import ChatRequest
from longalign_core.errors import StoreError
from longalign_core.records import Message


def to_bytes(text: str) -> bytes:
    """Any string as bytes."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """The string that `to_bytes` made these of."""
    return data.decode("utf-8", "surrogatepass")


def to_json(value: Any) -> bytes:
    """A JSON value on one line, the same for the same value."""
    return to_bytes(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")))


def from_json(data: bytes) -> Any:
    """The value that `to_json` made these of."""
    return json.loads(to_text(data))


@dataclass(frozen=True, slots=True)
class SharedText:
    """The text that several requests begin with.

    Attributes:
        sha256: Of its bytes, 64 hex digits.
        data: Its bytes, as `to_bytes` makes them.
    """

    sha256: str
    data: bytes

    def compressed(self) -> bytes:
        """As it is kept, here and in the archive."""
        return zstd.compress(self.data)


def decompressed_text(data: bytes, sha256: str, place: str) -> str:
    """The text that was compressed, if it is the one with this hash.

    Raises:
        StoreError: It is not.
    """
    try:
        content = zstd.decompress(data)
    except zstd.ZstdError:
        content = None
    if content is None or hashlib.sha256(content).hexdigest() != sha256:
        raise StoreError(f"the text {sha256} in {place} is damaged: its content has another sha256; delete it there")
    return to_text(content)


def shared_text(request: ChatRequest) -> SharedText | None:
    """What the request begins with and others may too; None if it says of nothing that they do."""
    if not (request.shared_characters and request.messages):
        return None
    data = to_bytes(request.messages[0].content[: request.shared_characters])
    return SharedText(hashlib.sha256(data).hexdigest(), data)


def request_values(request: ChatRequest) -> dict[str, Any]:
    """All of a request but its shared text, as JSON values."""
    values = asdict(request)
    if shared_text(request):
        values["messages"][0]["content"] = request.messages[0].content[request.shared_characters :]
    values["messages"] = list(values["messages"])
    return values


def request_of_values(values: dict[str, Any], text: str) -> ChatRequest:
    """The request whose values and shared text these are.

    Raises:
        StoreError: The values are of no form that is known here.
    """
    try:
        messages = [Message(**message) for message in values["messages"]]
        if text:
            messages[0] = Message(role=messages[0].role, content=text + messages[0].content)
        return ChatRequest(**{**values, "messages": tuple(messages)})
    except (KeyError, TypeError, IndexError) as error:
        raise StoreError(
            f"a stored request has a form that is not known here ({error}); update LongAlign to read it"
        ) from None
