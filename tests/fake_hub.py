"""A Hugging Face hub on loopback: what its clients ask of a dataset repository, from files in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

Repositories = Mapping[str, Mapping[str, bytes]]
REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def fake_hub(repositories: Repositories, *, breaks_off: str | None = None) -> Iterator[str]:
    """Serve repositories (`org/name` to path to bytes), each with one revision.

    Of files whose path contains `breaks_off`, the connection ends after half of what was asked for.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
            self._answer(body=True, asked=form.get("paths", []))

        def _answer(self, *, body: bool, asked: list[str] | None = None) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            is_api = parts[0] == "api"
            parts = parts[1:] if is_api else parts
            repository = "/".join(parts[1:3])
            if parts[0] != "datasets" or repository not in repositories:
                return self._missing("RepoNotFound")
            files = repositories[repository]
            what, revision, path = (parts[3:4] or [""])[0], (parts[4:5] or ["main"])[0], "/".join(parts[5:])
            if revision not in ("main", REVISION):
                return self._missing("RevisionNotFound")
            if not is_api:
                return self._file(path, files.get(path), body)
            if what == "tree":
                inside = [name for name in files if name.startswith(f"{path}/" if path else "")]
                if not inside:
                    return self._missing("EntryNotFound")
                deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
                return self._json(_entries(files, inside, path, deep))
            if what == "paths-info":
                folders = {name.rpartition("/")[0] for name in files}
                found = [_entry(name, files[name]) for name in asked or [] if name in files]
                found += [_folder(name) for name in asked or [] if name in folders]
                return self._json(found)
            siblings = [{"rfilename": name} for name in files]
            return self._json({"id": repository, "sha": REVISION, "siblings": siblings, "tags": [], "private": False})

        def _file(self, path: str, data: bytes | None, body: bool) -> None:
            if data is None:
                return self._missing("EntryNotFound")
            start, end = 0, len(data)
            if wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first), min(len(data), int(last) + 1) if last else len(data)
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            self.end_headers()
            if body and breaks_off and breaks_off in path:
                self.wfile.write(data[start : (start + end) // 2])
                self.close_connection = True
            elif body:
                self.wfile.write(data[start:end])
            return None

        def _json(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _missing(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            if code == "EntryNotFound":
                self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _entries(files: Mapping[str, bytes], names: list[str], path: str, deep: bool) -> list[dict[str, object]]:
    below = len(path) + 1 if path else 0
    folders = {name[: below + name[below:].index("/")] for name in names if "/" in name[below:]}
    shown = names if deep else [name for name in names if "/" not in name[below:]]
    return [_folder(folder) for folder in sorted(folders)] + [_entry(name, files[name]) for name in shown]


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


def _folder(name: str) -> dict[str, object]:
    return {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
