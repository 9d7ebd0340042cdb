"""A model server for tests: OpenAI's chat interface on loopback, answering what a test tells it to.

In a test:

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
from urllib.parse import unquote

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A reply that is not simply a text with status 200.

    Attributes:
        status: HTTP status.
        headers: Sent besides the usual ones.
        body: Sent as it is; `completion(...)` makes one that a client accepts.
        delay: Seconds before the reply starts. Closing the server ends the wait.
        drop_connection: Close the connection without a byte of reply.
    """

    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"error": {"message": "made to fail", "type": "server_error", "code": null}}'
    delay: float = 0.0
    drop_connection: bool = False


def completion(
    text: str | None,
    *,
    body: Body | None = None,
    finish_reason: str = "stop",
    usage: Body | None = None,
) -> str:
    """The JSON of one chat completion. Usage counts whitespace words of `body`'s messages unless given."""
    messages = (body or {}).get("messages", [])
    prompt_words = sum(len(message["content"].split()) for message in messages)
    reply_words = len((text or "").split())
    counted = {
        "prompt_tokens": prompt_words,
        "completion_tokens": reply_words,
        "total_tokens": prompt_words + reply_words,
    }
    return json.dumps(
        {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 0,
            "model": (body or {}).get("model", "fake-model"),
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            ],
            "usage": counted if usage is None else usage,
        }
    )


def error_body(message: str, code: str | None = None, kind: str = "invalid_request_error") -> str:
    """The JSON of an error as OpenAI's servers send it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


class FakeChatServer:
    """A threaded HTTP server on 127.0.0.1 that speaks /v1/models and /v1/chat/completions.

    Attributes:
        requests: Parsed bodies of the completions asked for, in order of arrival.
        headers: Their headers, names in lower case, in the same order.
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
        self.headers: list[dict[str, str]] = []
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

    def accepts(self, authorization: str) -> bool:
        """Whether the Authorization header carries its key."""
        return self._api_key is None or authorization == f"Bearer {self._api_key}"

    def models(self) -> Body:
        """What /v1/models replies."""
        return {"object": "list", "data": [_model(name) for name in self._models or ()]}

    def complete(self, body: Body, headers: dict[str, str]) -> Fault:
        """Note a completion request, ask `respond`, and wait as it says."""
        with self._lock:
            self.requests.append(body)
            self.headers.append(headers)
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        try:
            reply = self._respond(body)
            if isinstance(reply, str):
                return Fault(status=200, body=completion(reply, body=body))
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


def _model(name: str) -> Body:
    return {"id": name, "object": "model", "created": 0, "owned_by": "tests"}


def _handler_of(owner: FakeChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Buffered, so that head and body leave in one piece: two small writes cost 40 ms each on loopback.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if not owner.accepts(self.headers.get("Authorization", "")):
                return self._reply(Fault(status=401, body=error_body("wrong key", "invalid_api_key")))
            if self.path == "/v1/models":
                return self._reply(Fault(status=200, body=json.dumps(owner.models())))
            if self.path.startswith("/v1/models/"):
                name = unquote(self.path.removeprefix("/v1/models/"))
                if owner.knows(name):
                    return self._reply(Fault(status=200, body=json.dumps(_model(name))))
            return self._reply(Fault(status=404, body=error_body("not found", "model_not_found")))

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path != "/v1/chat/completions":
                return self._reply(Fault(status=404, body=error_body("no such path")))
            if not owner.accepts(self.headers.get("Authorization", "")):
                return self._reply(Fault(status=401, body=error_body("wrong key", "invalid_api_key")))
            body = json.loads(content)
            if not owner.knows(body["model"]):
                return self._reply(Fault(status=404, body=error_body("unknown model", "model_not_found")))
            return self._reply(owner.complete(body, {name.lower(): value for name, value in self.headers.items()}))

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
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests read `requests`."""

    return Handler


def generic_reply(body: Body) -> str:
    """A sensible reply to the prompts of this project, the same for the same prompt.

    A prompt that ends by asking for a numbered list gets five questions, a judge's prompt gets
    a rating, and any other a sentence.
    """
    prompt = body["messages"][-1]["content"]
    digest = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:8]
    if re.search(r"\[\[\s*(rating|score|\d+)\s*\]\]", prompt, re.IGNORECASE):
        return f"The answer is close to the reference ({digest}). Rating: [[7]]"
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
