"""A model server for measurements: Chat Completions on loopback with a set latency and seeded faults.

One asyncio process without threads, since the server of the tests (`tests/fake_chat_server.py`) is slower
than the client that is to be measured. Run it as a process of its own:

    python -m benchmarks.chat_server --latency 0.5:1.0 --fault 429=0.02 --fault reset=0.02 --seed 7

It prints its base URL (http://127.0.0.1:PORT/v1) and serves until it is stopped. `start_chat_server(...)`
does that from a benchmark and gives a `ChatServer` with `url`, `counts()` and `asked()`.

Whether a request meets a fault depends on the seed, the request's hash and how often it was asked before,
so two runs meet the same faults, whatever the order, and a second try may succeed. Faults: `429` (with
Retry-After), `5xx` (500, 502, 503, 529 in turn), `reset` (the connection ends without a byte of reply),
`stall` (no reply until the client gives up), `truncated` (half of the JSON, status 200), `refusal` (a
reply that declines, half of them in the `refusal` field); `all=0.12` gives each kind a sixth of it.

Beside /v1/models and /v1/chat/completions: GET /counts is one JSON object (requests, answered, each fault,
peak_in_flight, busy_seconds: the sum of the seconds that requests were under way, span_seconds: from the
first request to the last reply), and GET /asked maps the
hash of each request to [times asked, times answered]. Every reply's text holds its request's hash, so a
stored reply tells which request it answered.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

KINDS = ("429", "5xx", "reset", "stall", "truncated", "refusal")
_SERVER_ERRORS = (500, 502, 503, 529)
_HASH_DIGITS = 16


def request_hash(body: Mapping[str, Any]) -> str:
    """What a request is counted by: 16 hex digits over its model, messages and longest reply."""
    digest = hashlib.sha256(f"{body.get('model')}\0{body.get('max_tokens')}".encode())
    for message in body["messages"]:
        digest.update(f"\0{message['role']}\0{message['content']}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:_HASH_DIGITS]


def generic_reply(body: Mapping[str, Any], digest: str) -> str:
    """A sensible reply to the prompts of this project, the same for the same prompt, with its hash inside.

    A prompt that ends by asking for a numbered list gets five questions, one that asks for a rating gets
    one, and any other two sentences.
    """
    end = str(body["messages"][-1]["content"])[-1500:]
    if re.search(r"\[\[\s*(rating|score|\d+)\s*\]\]", end, re.IGNORECASE):
        return f"The answer is close to the reference ({digest}). Rating: [[7]]"
    if re.search(r"\b1[:.：]", end):
        return "\n".join(f"{n}: {word} does text {digest} say in part {n}?" for n, word in enumerate(_WORDS, 1))
    return f"The text says what it says, and its mark is {digest}. Nothing more can be said of it."


_WORDS = ("What", "Why", "Where", "How", "When")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a server behaves.

    Attributes:
        latency: Shortest and longest wait before a reply, seconds; each request draws its own.
        faults: Share of requests that meet each kind of fault.
        seed: Of the draws.
        retry_after: What a 429 tells in its Retry-After header, seconds.
    """

    latency: tuple[float, float] = (0.5, 1.0)
    faults: Mapping[str, float]
    seed: int = 0
    retry_after: float = 1.0


class _State:
    """What the server saw, and what it does with the next request."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.counts: Counter[str] = Counter()
        self.asked: dict[str, list[int]] = {}
        self.in_flight = 0
        self.peak_in_flight = 0
        self.busy_seconds = 0.0
        self.first_at = self.last_at = 0.0

    def draw(self, digest: str) -> tuple[float, str | None, random.Random]:
        """Wait and fault (None for none) of the next try of a request, and what is left of its dice."""
        times = self.asked.setdefault(digest, [0, 0])
        times[0] += 1
        self.counts["requests"] += 1
        dice = random.Random(f"{self.behaviour.seed} {digest} {times[0]}")
        wait = dice.uniform(*self.behaviour.latency)
        point = dice.random()
        for kind, share in self.behaviour.faults.items():
            point -= share
            if point < 0:
                self.counts[kind] += 1
                return wait, kind, dice
        return wait, None, dice


class _Connection(asyncio.Protocol):
    """One keep-alive connection of HTTP/1.1 with Content-Length bodies, which is all that the SDKs send."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._received = bytearray()
        self._needed = 0
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._answering:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < self._needed:
            return
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).decode("latin-1")
        length = re.search(r"(?im)^content-length:\s*(\d+)", head)
        self._needed = end + 4 + (int(length[1]) if length else 0)
        if len(self._received) < self._needed:
            return
        content = bytes(self._received[end + 4 : self._needed])
        del self._received[: self._needed]
        self._needed = 0
        method, path, _ = head.split(" ", 2)
        self._answering = asyncio.ensure_future(self._answer(method, path, content))

    async def _answer(self, method: str, path: str, content: bytes) -> None:
        state = self._state
        if method == "POST" and path == "/v1/chat/completions":
            state.in_flight += 1
            state.peak_in_flight = max(state.peak_in_flight, state.in_flight)
            start = time.perf_counter()
            state.first_at = state.first_at or start
            try:
                await self._complete(json.loads(content))
            finally:
                state.in_flight -= 1
                state.last_at = time.perf_counter()
                state.busy_seconds += state.last_at - start
        elif path == "/counts":
            times = {
                "peak_in_flight": state.peak_in_flight,
                "busy_seconds": state.busy_seconds,
                "span_seconds": state.last_at - state.first_at,
            }
            self._send(200, {**state.counts, **times})
        elif path == "/asked":
            self._send(200, state.asked)
        elif path == "/v1/models":
            self._send(200, {"object": "list", "data": []})
        elif path.startswith("/v1/models/"):
            self._send(200, {"id": path.removeprefix("/v1/models/"), "object": "model"})
        else:
            self._send(404, _error("no such path"))

    async def _complete(self, body: dict[str, Any]) -> None:
        state = self._state
        digest = request_hash(body)
        wait, fault, dice = state.draw(digest)
        if fault == "stall":
            await asyncio.Event().wait()  # Ends when the client hangs up.
        if fault == "429":
            return self._send(429, _error("too many requests"), f"Retry-After: {state.behaviour.retry_after:g}\r\n")
        await asyncio.sleep(wait)
        if fault == "5xx":
            return self._send(dice.choice(_SERVER_ERRORS), _error("made to fail"))
        if fault == "reset":
            return self._transport.abort()
        message: dict[str, Any] = {"role": "assistant", "content": generic_reply(body, digest)}
        if fault == "refusal":
            words = f"I'm sorry, but I can't help with that ({digest})."
            message = {"role": "assistant", "content": words}
            if dice.random() < 0.5:
                message = {"role": "assistant", "content": None, "refusal": words}
        reply = _completion(body, message, digest)
        if fault == "truncated":
            return self._write(200, json.dumps(reply).encode()[:-40])
        state.asked[digest][1] += 1
        state.counts["answered"] += 1
        return self._send(200, reply)

    def _send(self, status: int, value: object, more_headers: str = "") -> None:
        self._write(status, json.dumps(value).encode(), more_headers)

    def _write(self, status: int, content: bytes, more_headers: str = "") -> None:
        head = f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        self._transport.write(f"{head}{more_headers}\r\n".encode() + content)


def _completion(body: Mapping[str, Any], message: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """A chat completion; usage is a quarter of the characters, rounded up."""
    prompt = sum(len(turn["content"]) for turn in body["messages"]) // 4 + 1
    reply = len(message["content"] or "") // 4 + 1
    return {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply},
    }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


@dataclass(frozen=True, slots=True)
class ChatServer:
    """A server that runs as a process of its own.

    Attributes:
        url: Base URL for a client; ends in /v1.
    """

    url: str

    def counts(self) -> dict[str, float]:
        """What it saw so far, by kind."""
        return self._get("/counts")

    def asked(self) -> dict[str, tuple[int, int]]:
        """By request hash: times asked, times answered."""
        return {digest: (times[0], times[1]) for digest, times in self._get("/asked").items()}

    def _get(self, path: str) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url.removesuffix("/v1") + path) as response:
            found = json.load(response)
        assert isinstance(found, dict)
        return found


@contextmanager
def start_chat_server(behaviour: Behaviour, port: int = 0) -> Iterator[ChatServer]:
    """Run a server until the context ends."""
    command = [sys.executable, "-m", "benchmarks.chat_server", "--port", str(port), "--seed", str(behaviour.seed)]
    command += ["--latency", "{}:{}".format(*behaviour.latency), "--retry-after", str(behaviour.retry_after)]
    for kind, share in behaviour.faults.items():
        command += ["--fault", f"{kind}={share}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield ChatServer(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait()


def fault_shares(given: Sequence[str]) -> dict[str, float]:
    """Shares of faults as they are written in options: KIND=SHARE, or all=SHARE for all kinds together."""
    shares: dict[str, float] = {}
    for entry in given:
        kind, _, share = entry.partition("=")
        if kind == "all":
            shares.update(dict.fromkeys(KINDS, float(share) / len(KINDS)))
        elif kind in KINDS:
            shares[kind] = float(share)
        else:
            raise SystemExit(f"there is no fault {kind!r}; give one of {', '.join(KINDS)} or all")
    return shares


def _latency(given: str) -> tuple[float, float]:
    shortest, _, longest = given.partition(":")
    return float(shortest), float(longest or shortest)


async def _serve(behaviour: Behaviour, port: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    state = _State(behaviour)
    server = await loop.create_server(lambda: _Connection(state), "127.0.0.1", port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await stopped.wait()


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--latency", type=_latency, default=(0.5, 1.0), help="seconds, or SHORTEST:LONGEST")
    parser.add_argument("--fault", action="append", default=[], help="KIND=SHARE, again for each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--retry-after", type=float, default=1.0, help="seconds that a 429 asks to wait")
    options = parser.parse_args()
    behaviour = Behaviour(
        latency=options.latency, faults=fault_shares(options.fault), seed=options.seed, retry_after=options.retry_after
    )
    asyncio.run(_serve(behaviour, options.port))


if __name__ == "__main__":
    main()
