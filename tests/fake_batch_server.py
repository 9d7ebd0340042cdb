"""Both providers' batch interfaces on loopback, ending, failing and breaking batches as a test tells them to.

In a test:

    with FakeBatchServer() as server:
        ...  # submit to server.openai_url or server.anthropic_url
        server.end_all()  # every batch under way ends; each request is answered by `server.answer`
        ...  # collect; server.times_sent says how often each request was taken

A process that submits can be killed at the server's n-th exchange with it: `server.kill(pid, 3, "before")`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fake_batch_bodies import (
    CANCELLED,
    EXPIRED,
    LOST,
    Body,
    FakeBatch,
    Refused,
    anthropic_result,
    described,
    json_lines,
    openai_body,
    words_of,
)


@dataclass
class _Reply:
    status: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


class FakeBatchServer:
    """Speaks /v1/files and /v1/batches as OpenAI, /v1/messages/batches as Anthropic.

    Attributes:
        answer: From a request's body to its words, `Refused`, or EXPIRED, CANCELLED, LOST (no result line).
        at_once: Batches end as soon as they are made.
        page: Batches that a list holds at most.
        refuse_next: Replies to the next submissions instead of taking them: status, body.
        take_and_break: So many submissions are taken, and the connection then broken without a reply.
        drop_next: So many submissions are not taken, and the connection broken without a reply.
        when_dropped: Called at each of these.
        cut_results: So many downloads of results end in the middle, without the connection telling.
        rewrite: Applied to the bytes of results, to damage them.
        uploads: Content of the files uploaded or bodies posted.
        exchanges: Method and path of every request.
        headers: Of every request, names in lower case.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Body], str | Refused] = lambda body: f"reply to {words_of(body)}"
        self.at_once = False
        self.page = 100
        self.refuse_next: list[tuple[int, Body]] = []
        self.take_and_break = 0
        self.drop_next = 0
        self.when_dropped: Callable[[], object] = lambda: None
        self.cut_results = 0
        self.rewrite: Callable[[bytes], bytes] = lambda content: content
        self.batches: list[FakeBatch] = []
        self.uploads: list[bytes] = []
        self.exchanges: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._files: dict[str, bytes] = {}
        self.kill_within: tuple[int, Callable[[], bool]] | None = None
        self._to_kill: tuple[int, int, str] | None = None
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))

    def __enter__(self) -> FakeBatchServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def root(self) -> str:
        """Its address without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def times_sent(self) -> Counter[str]:
        """How often each request was taken, by its custom_id; not counting batches that failed before they began."""
        with self._lock:
            return Counter(key for batch in self.batches if batch.status != "failed" for key in batch.rows)

    def kill(self, pid: int, exchange: int, phase: str) -> None:
        """Kill a process at the server's exchange of that number from now, before or after it is carried out."""
        with self._lock:
            self._to_kill = (pid, len(self.exchanges) + exchange, phase)

    def kill_within_results(self, pid: int, until: Callable[[], bool]) -> None:
        """Kill a process that was sent half of some results, as soon as `until` holds."""
        with self._lock:
            self.kill_within = (pid, until)

    def end_all(self, status: str = "completed") -> None:
        """End every batch under way; status is completed, expired or cancelled."""
        with self._lock:
            for batch in self.batches:
                if batch.status == "in_progress":
                    self._end(batch, status)

    def fail_all(self, code: str, message: str, line: int | None = None) -> None:
        """Have every batch under way fail before it began, as OpenAI does when it does not accept a file."""
        with self._lock:
            for batch in self.batches:
                if batch.status == "in_progress":
                    batch.status = "failed"
                    batch.reasons = [{"code": code, "message": message, "line": line, "param": None}]

    def add_ended(self, provider: str, models: dict[str, str]) -> None:
        """Add a batch that somebody else made and that ended, with requests by custom_id and model."""
        rows = {key: {"model": model, "messages": [{"role": "user", "content": key}]} for key, model in models.items()}
        with self._lock:
            self.batches.append(FakeBatch(self._name(), provider, rows, {}, "/v1/chat/completions"))
            self._end(self.batches[-1], "completed")

    def _end(self, batch: FakeBatch, status: str) -> None:
        outcomes = {key: self.answer(row) for key, row in batch.rows.items()}
        lines: list[Body] = []
        errors: list[Body] = []
        for key, outcome in reversed(outcomes.items()):
            if outcome == LOST:
                continue
            if batch.provider == "anthropic":
                lines.append({"custom_id": key, "result": anthropic_result(batch.rows[key], outcome)})
            elif isinstance(outcome, str) and outcome not in (EXPIRED, CANCELLED):
                response = {"status_code": 200, "body": openai_body(batch.endpoint, batch.rows[key], outcome)}
                lines.append({"id": f"r-{key[:8]}", "custom_id": key, "response": response, "error": None})
            elif isinstance(outcome, Refused):
                response = {"status_code": outcome.status, "body": outcome.body}
                errors.append({"id": f"r-{key[:8]}", "custom_id": key, "response": response, "error": None})
            else:
                code = {EXPIRED: "batch_expired", CANCELLED: "batch_cancelled"}[outcome]
                error = {"code": code, "message": "could not be executed"}
                errors.append({"id": f"r-{key[:8]}", "custom_id": key, "response": None, "error": error})
        batch.status = "ended" if batch.provider == "anthropic" else status
        batch.output = self.rewrite(json_lines(lines))
        batch.errors = json_lines(errors) if errors else None

    def carry_out(self, method: str, path: str, headers: dict[str, str], content: bytes) -> _Reply | None:
        """Answer one request; None breaks the connection."""
        with self._lock:
            number = len(self.exchanges)
            self.exchanges.append(f"{method} {urlsplit(path).path}")
            self.headers.append(headers)
            if self._killed(number, "before"):
                return None
            reply = self._route(method, path, headers, content)
            if self._killed(number, "after"):
                return None
            return reply

    def _killed(self, number: int, phase: str) -> bool:
        if self._to_kill is None or self._to_kill[1:] != (number, phase):
            return False
        os.kill(self._to_kill[0], signal.SIGKILL)
        self._to_kill = None
        return True

    def _route(self, method: str, path: str, headers: dict[str, str], content: bytes) -> _Reply | None:
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if re.fullmatch(r"/v1/models/[^/]+", parts.path):
            return _json({"id": parts.path.rpartition("/")[2], "object": "model", "created": 0, "owned_by": "tests"})
        if method == "POST":
            return self._post(parts.path, headers, content)
        provider = "anthropic" if parts.path.startswith("/v1/messages/batches") else "openai"
        if parts.path in ("/v1/batches", "/v1/messages/batches"):
            return self._list(provider, query)
        if found := re.fullmatch(r"/v1/files/([^/]+)/content", parts.path):
            return self._results(self._files_of(found[1]))
        if found := re.fullmatch(r"/v1/(?:messages/)?batches/([^/]+)(/results)?", parts.path):
            batch = next((one for one in self.batches if (one.id, one.provider) == (found[1], provider)), None)
            if batch is not None and found[2]:
                return self._results(batch.output)
            if batch is not None:
                return _json(described(batch))
        return _json({"error": {"message": "not found", "type": "not_found_error", "code": None}}, 404)

    def _post(self, path: str, headers: dict[str, str], content: bytes) -> _Reply | None:
        if path == "/v1/files":
            boundary = headers["content-type"].partition("boundary=")[2].strip('"').encode()
            (data,) = [part for part in content.split(b"--" + boundary) if b'name="file"' in part]
            uploaded = data.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            self.uploads.append(uploaded)
            file = f"file-{len(self._files)}"
            self._files[file] = uploaded
            return _json({"id": file, "object": "file", "purpose": "batch", "bytes": len(uploaded)})
        if self.refuse_next:
            status, body = self.refuse_next.pop(0)
            return _json(body, status)
        if self.drop_next:
            self.drop_next -= 1
            self.when_dropped()
            return None
        asked = json.loads(content)
        if path == "/v1/batches":
            rows = [json.loads(line) for line in self._files[asked["input_file_id"]].splitlines()]
            bodies = {row["custom_id"]: row["body"] for row in rows}
            assert all(row["url"] == asked["endpoint"] and row["method"] == "POST" for row in rows)
            batch = FakeBatch(self._name(), "openai", bodies, asked.get("metadata") or {}, asked["endpoint"])
        elif path == "/v1/messages/batches":
            self.uploads.append(content)
            rows = asked["requests"]
            batch = FakeBatch(self._name(), "anthropic", {row["custom_id"]: row["params"] for row in rows}, {})
            if any(not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", key) for key in batch.rows):
                return _json({"error": {"type": "invalid_request_error", "message": "custom_id"}}, 400)
        else:
            return _json({"error": {"message": "no such path", "type": "not_found_error"}}, 404)
        assert len(batch.rows) == len(rows), "a custom_id twice in one batch"
        self.batches.append(batch)
        if self.at_once:
            self._end(batch, "completed")
        if self.take_and_break:
            self.take_and_break -= 1
            return None
        return _json(described(batch))

    def _name(self) -> str:
        return f"batch_{len(self.batches)}"

    def _list(self, provider: str, query: dict[str, str]) -> _Reply:
        newest_first = [batch for batch in reversed(self.batches) if batch.provider == provider]
        after = query.get("after") or query.get("after_id")
        if after:
            place = next(place for place, batch in enumerate(newest_first) if batch.id == after)
            newest_first = newest_first[place + 1 :]
        limit = min(int(query.get("limit", 20)), self.page)
        page = [described(batch) for batch in newest_first[:limit]]
        ids = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return _json({"object": "list", "data": page, "has_more": len(newest_first) > limit, **ids})

    def _files_of(self, file: str) -> bytes | None:
        kind, _, batch_id = file.partition("-of-")
        batch = next(batch for batch in self.batches if batch.id == batch_id)
        return batch.output if kind == "output" else batch.errors

    def _results(self, content: bytes | None) -> _Reply:
        assert content is not None, "results of a batch that has not ended"
        if self.cut_results:
            self.cut_results -= 1
            content = content[: len(content) // 2]
        return _Reply(200, content, {"Content-Type": "application/binary", "result": "yes"})


def _json(body: Body, status: int = 200) -> _Reply:
    return _Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet when a client was killed."""


def _handler_of(owner: FakeBatchServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                content = b"".join(iter(self._chunk, b""))
            else:
                content = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(content)

        def _chunk(self) -> bytes:
            content = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            return content

        def _answer(self, content: bytes) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = owner.carry_out(self.command, self.path, headers, content)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if owner.kill_within is not None and "result" in reply.headers:
                self._send_half(reply.content)
            else:
                self.wfile.write(reply.content)

        def _send_half(self, content: bytes) -> None:
            assert owner.kill_within is not None
            pid, until = owner.kill_within
            owner.kill_within = None
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            deadline = time.monotonic() + 60
            while not until() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: tests read what the server noted."""

    return Handler
