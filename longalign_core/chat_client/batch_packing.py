"""Requests streamed into parts on disk, each within what a provider takes at once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from io import FileIO
from typing import BinaryIO

from longalign_core.chat_client.batch_files import flush_to_disk, write_request
from longalign_core.chat_client.batch_state import BatchState, PackedRequest
from longalign_core.chat_client.batch_wire import BatchWire, Part
from longalign_core.chat_client.calls import ChatRequest

# Text with fewer bytes a token is rare in any language, so this rather counts too many tokens.
_BYTES_PER_TOKEN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLimits:
    """Limits of a part below the provider's own, which hold too; None for no such limit.

    Attributes:
        max_requests: Most requests.
        max_bytes: Most bytes of the file that is sent.
        max_tokens: Most prompt tokens, estimated. What a provider told of it holds too.
    """

    max_requests: int | None = None
    max_bytes: int | None = None
    max_tokens: int | None = None


@dataclass(slots=True)
class _OpenPart:
    name: str
    file: BinaryIO
    requests: list[PackedRequest] = field(default_factory=list)
    num_bytes: int = 0
    num_tokens: int = 0


class Packing:
    """Parts that are still being filled, one a model: providers take one model a batch. Memory holds keys only.

    Attributes:
        max_bytes: Most bytes of a part's file.
    """

    def __init__(self, state: BatchState, wire: BatchWire, limits: PartLimits) -> None:
        """Nothing is open yet.

        Args:
            state: Where complete parts are noted.
            wire: Its limits hold.
            limits: These too.
        """
        self._state = state
        self._wire = wire
        self._max_requests = _least(wire.max_requests, limits.max_requests)
        self.max_bytes = _least(wire.max_bytes, limits.max_bytes)
        self._max_tokens = limits.max_tokens
        self._open: dict[str, _OpenPart] = {}
        self._keys: set[str] = set()
        self._tickets: FileIO | None = None

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def fits_at_all(self, num_bytes: int) -> bool:
        """Whether a part could hold a request of so many bytes."""
        frame = self._wire.frame
        return len(frame.opening) + num_bytes + len(frame.closing) <= self.max_bytes

    def note_ticket(self, ticket: str) -> None:
        """Have a kill before the request's part is complete leave its ticket behind, to be given back."""
        if self._tickets is None:
            self._tickets = self._state.tickets_file.open("ab", buffering=0)
        self._tickets.write(ticket.encode() + b"\n")

    def loose_tickets(self) -> list[str]:
        """Tickets that an earlier run left behind, of requests that are in no part. The next call gives none."""
        path = self._state.tickets_file
        *noted, _ = path.read_text().split("\n") if path.exists() else [""]
        loose = [ticket for ticket in noted if not self._state.holds_ticket(ticket)]
        path.unlink(missing_ok=True)
        return loose

    def add(self, request: ChatRequest, num_bytes: int, ticket: str | None) -> Part | None:
        """Write a request to its model's part; the part that had no room for it any more, or None.

        Args:
            request: One that is in no part yet.
            num_bytes: Of its line in the file that is sent.
            ticket: The budget's.
        """
        num_tokens = estimate_tokens(request)
        complete = None
        held = self._open.get(request.model)
        if held is not None and not self._has_room(held, request.model, num_bytes, num_tokens):
            complete = self._close(request.model)
            held = None
        if held is None:
            name = secrets.token_hex(16)
            held = self._open[request.model] = _OpenPart(name, self._state.file_of(name).open("wb"))
        key = request.key
        held.requests.append(PackedRequest(key, *write_request(held.file, request), ticket))
        held.num_bytes += num_bytes + len(self._wire.frame.separator)
        held.num_tokens += num_tokens
        self._keys.add(key)
        return complete

    def close_all(self) -> list[Part]:
        """Complete every part that is open."""
        complete = [self._close(model) for model in list(self._open)]
        self._forget_tickets()
        return complete

    def discard(self) -> list[str]:
        """Give up what is open, and give the tickets of it back."""
        tickets: list[str] = []
        for held in self._open.values():
            held.file.close()
            self._state.file_of(held.name).unlink(missing_ok=True)
            tickets += [one.ticket for one in held.requests if one.ticket is not None]
        self._open.clear()
        self._keys.clear()
        self._forget_tickets()
        return tickets

    def _forget_tickets(self) -> None:
        if self._tickets is not None:
            self._tickets.close()
            self._tickets = None
        self._state.tickets_file.unlink(missing_ok=True)

    def _has_room(self, held: _OpenPart, model: str, num_bytes: int, num_tokens: int) -> bool:
        frame = self._wire.frame
        whole = len(frame.opening) + held.num_bytes + num_bytes + len(frame.closing)
        num_all_tokens = held.num_tokens + num_tokens
        return (
            len(held.requests) < self._max_requests
            and whole <= self.max_bytes
            and num_all_tokens <= _least(num_all_tokens, self._max_tokens, self._state.learnt(waiting_tokens(model)))
        )

    def _close(self, model: str) -> Part:
        held = self._open.pop(model)
        with held.file:
            flush_to_disk(held.file)
        part = Part(name=held.name, model=model, num_requests=len(held.requests), num_tokens=held.num_tokens)
        self._state.add_part(part, held.requests)
        self._keys -= {one.key for one in held.requests}
        return part


def _least(limit: int, *others: int | None) -> int:
    return min([limit, *(other for other in others if other is not None)])


def estimate_tokens(request: ChatRequest) -> int:
    """Tokens of a request's prompt, rather too many than too few."""
    return sum(
        -(-len(message.content.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN) for message in request.messages
    )


def waiting_tokens(model: str) -> str:
    """Under what name the state keeps how many prompt tokens an account may have waiting for a model."""
    return f"waiting tokens of {model}"
