"""A model server for tests, on loopback, answering what a test tells it to.

One server speaks Chat Completions and Responses as OpenAI does, and Messages as Anthropic does. In a test:

    with FakeChatServer(lambda body: "a reply") as server:
        ...  # server.url ends in /v1; server.requests holds the bodies it was sent

As a process of its own, for tests that kill the client: `python -m tests.fake_chat_server --port 0
--log FILE` prints its URL and writes every request body it receives to FILE, one JSON line each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fake_replies import (
    CHAT,
    MESSAGES,
    RESPONSES,
    Body,
    anthropic_error,
    completion,
    error_body,
    model_entry,
    model_list,
    reply_body,
    turns_of,
)

__all__ = ["FakeChatServer", "Fault", "anthropic_error", "completion", "error_body", "generic_reply"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A reply that is not simply a text with status 200.

    Attributes:
        status: HTTP status.
        headers: Sent besides the usual ones.
        body: Sent as it is; `completion(...)` and its like in `fake_replies` make one that a client accepts.
        delay: Seconds before the reply starts. Closing the server ends the wait.
        drop_connection: Close the connection without a byte of reply.
        cut_at: Close it after so many bytes of the body; None sends it whole.
    """

    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"error": {"message": "made to fail", "type": "server_error", "code": null}}'
    delay: float = 0.0
    drop_connection: bool = False
    cut_at: int | None = None


class FakeChatServer:
    """A threaded HTTP server on 127.0.0.1 that speaks /v1/models and each provider's way of asking for a reply.

    Attributes:
        requests: Parsed bodies of the replies asked for, in order of arrival.
        contents: The same as the bytes that came.
        headers: Their headers, names in lower case, in the same order.
        other_headers: Those of requests for models.
        peak_in_flight: Most completions that were under way at once.
    """

    def __init__(
        self,
        respond: Callable[[Body], str | Fault],
        *,
        models: Sequence[str] | None = None,
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        """Make a server.

        Args:
            respond: From a request's body to the reply. Called from several threads at once.
            models: Models it knows, others get 404; None knows every model.
            api_key: The only key it accepts; None accepts all.
            port: 0 takes a free one.
        """
        self.requests: list[Body] = []
        self.contents: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.other_headers: list[dict[str, str]] = []
        self.peak_in_flight = 0
        self._respond = respond
        self._models = models
        self._api_key = api_key
        self._in_flight = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), _handler_of(self))

    @property
    def url(self) -> str:
        """Base URL for a client; ends in /v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> FakeChatServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def knows(self, model: str) -> bool:
        """Whether it serves the model."""
        return self._models is None or model in self._models

    def accepts(self, headers: Mapping[str, str]) -> bool:
        """Whether the headers (names in lower case) carry its key, in either of the ways that providers know."""
        sent = {headers.get("authorization", "").removeprefix("Bearer "), headers.get("x-api-key")} - {"", None}
        return self._api_key is None or sent == {self._api_key}

    def models(self) -> list[str]:
        """Models that it lists."""
        return list(self._models or ())

    def complete(self, path: str, body: Body, content: bytes, headers: dict[str, str]) -> Fault:
        """Note a request for a reply, ask `respond`, and wait as it says."""
        with self._lock:
            self.requests.append(body)
            self.contents.append(content)
            self.headers.append(headers)
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        try:
            reply = self._respond(body)
            if isinstance(reply, str):
                return Fault(status=200, body=reply_body(path, reply, body))
            if reply.delay:
                self._closing.wait(reply.delay)
            return reply
        finally:
            with self._lock:
                self._in_flight -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet when a client was killed or gave up waiting."""


def _handler_of(owner: FakeChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Buffered, so that head and body leave in one piece: two small writes cost 40 ms each on loopback.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            headers = self._headers()
            owner.other_headers.append(headers)
            url = urlsplit(self.path)
            is_anthropic = "anthropic-version" in headers
            if not owner.accepts(headers):
                return self._refuse_key()
            if url.path == "/v1/models":
                listed = model_list(owner.models(), is_anthropic=is_anthropic, query=parse_qs(url.query))
                return self._reply(Fault(status=200, body=json.dumps(listed)))
            name = unquote(url.path.removeprefix("/v1/models/"))
            if url.path.startswith("/v1/models/") and owner.knows(name):
                described = model_entry(name, is_anthropic=is_anthropic)
                return self._reply(Fault(status=200, body=json.dumps(described)))
            return self._not_found(f"model: {name}")

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = self._headers()
            if self.path not in (CHAT, RESPONSES, MESSAGES):
                return self._not_found("no such path")
            if not owner.accepts(headers):
                return self._refuse_key()
            body = json.loads(content)
            if not owner.knows(body["model"]):
                return self._not_found("unknown model")
            return self._reply(owner.complete(self.path, body, content, headers))

        def _headers(self) -> dict[str, str]:
            return {name.lower(): value for name, value in self.headers.items()}

        def _refuse_key(self) -> None:
            if "anthropic-version" in self._headers():
                return self._reply(Fault(status=401, body=anthropic_error("invalid key", "authentication_error")))
            return self._reply(Fault(status=401, body=error_body("wrong key", "invalid_api_key")))

        def _not_found(self, what: str) -> None:
            if "anthropic-version" in self._headers():
                return self._reply(Fault(status=404, body=anthropic_error(what, "not_found_error")))
            return self._reply(Fault(status=404, body=error_body(what, "model_not_found")))

        def _reply(self, fault: Fault) -> None:
            if fault.drop_connection:
                self.close_connection = True
                return
            content = fault.body.encode()
            self.send_response(fault.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: fault.cut_at])
            self.close_connection = self.close_connection or fault.cut_at is not None

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests read `requests`."""

    return Handler


def generic_reply(body: Body) -> str:
    """A sensible reply to the prompts of this project, the same for the same prompt.

    A prompt that ends by asking for a numbered list gets five questions, a judge's prompt gets
    a rating, and any other a sentence; what ends in Chinese is answered in Chinese.
    """
    turns = turns_of(body)
    prompt = turns[-1][1]
    plain = json.dumps([{"role": role, "content": text} for role, text in turns])  # The same in every interface.
    digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
    if re.search(r"\[\[\s*(rating|score|\d+)\s*\]\]", prompt, re.IGNORECASE):
        return f"The answer is close to the reference ({digest}). Rating: [[7]]"
    is_chinese = re.search(r"[一-鿿]", prompt.strip().rpartition("\n")[2]) is not None
    if is_chinese and re.search(r"1[:：]", prompt[-600:]):
        return "\n".join(f"{number}: 标记为{digest}的文本第{number}部分讲了什么？" for number in range(1, 6))
    if is_chinese:
        return f"这段文本讲的就是它所讲的内容，它的标记是{digest}，除此之外没有别的说法。"
    if re.search(r"\b1[:：]", prompt[-1200:]):
        return "\n".join(f"{number}: What does part {number} of text {digest} say?" for number in range(1, 6))
    return f"The text says what it says, and its mark is {digest}."


def main() -> None:
    """Serve generic replies until stopped."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--log", type=Path, help="file that gets every request body as a JSON line")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each reply")
    options = parser.parse_args()
    lock = threading.Lock()
    stopped = threading.Event()

    def respond(body: Body) -> str:
        if options.log:
            with lock, options.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(body) + "\n")
        time.sleep(options.delay)
        return generic_reply(body)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with FakeChatServer(respond, port=options.port) as server:
        print(server.url, flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
