"""A Hugging Face hub on loopback that takes uploads: repositories, branches, LFS objects and commits in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "x" * 20
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """Visibility, and files by branch."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})


@dataclass
class UploadHub:
    """What the hub holds and saw.

    Attributes:
        repositories: By `datasets/org/name` or `models/org/name`.
        requests: Method and path of each request.
        refuses: Part of a path to the status and message it is refused with.
        lfs_suffixes: Files that the hub wants as LFS objects.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)
    lfs_suffixes: tuple[str, ...] = (".parquet", ".safetensors")


@contextmanager
def fake_upload_hub() -> Iterator[UploadHub]:
    """Serve an empty hub that knows one token."""
    hub = UploadHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self._body())

        def do_PUT(self) -> None:
            self._answer(self._body())

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, body: bytes) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path))
            for part, (status, message) in hub.refuses.items():
                if part in path:
                    return self._send(status, {"error": message})
            if path.startswith("/lfs/"):  # signed addresses of an object store take no token
                hub.objects[path.removeprefix("/lfs/")] = body
                return self._send(200, {})
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._send(401, {"error": "Invalid credentials"})
            if path == "/api/validate-yaml":
                return self._send(200, {"errors": [], "warnings": []})
            if path == "/api/repos/create":
                return self._create(json.loads(body))
            if path.endswith(".git/info/lfs/objects/batch"):
                return self._batch(json.loads(body))
            _, kind, organisation, name, *rest = path.strip("/").split("/")
            repository = hub.repositories.get(f"{kind}/{organisation}/{name}")
            if repository is None:
                return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return self._of_repository(f"{organisation}/{name}", repository, rest, body)

        def _of_repository(self, name: str, repository: Repository, rest: list[str], body: bytes) -> None:
            what, branch = (*rest, "", "")[:2]
            if what == "branch":
                known = branch in repository.branches
                repository.branches.setdefault(branch, dict(repository.branches["main"]))
                return self._send(409 if known else 200, {"error": "exists"} if known else {})
            if what in ("", "revision"):
                about = {"id": name, "sha": COMMIT, "private": repository.private, "siblings": [], "tags": []}
                return self._send(200, about)
            files = repository.branches.get(branch)
            if files is None:
                return self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            if what == "tree":
                rows = [
                    {"type": "file", "path": one, "size": len(files[one]), "oid": _blob(files[one])} for one in files
                ]
                return self._send(200, rows)
            if what == "preupload":
                asked = [one["path"] for one in json.loads(body)["files"]]
                return self._send(200, {"files": [self._mode(one, files) for one in asked]})
            assert what == "commit", what
            self._commit(files, [json.loads(line) for line in body.splitlines()])
            return self._send(
                200, {"success": True, "commitUrl": f"{hub.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
            )

        def _mode(self, path: str, files: dict[str, bytes]) -> dict[str, object]:
            is_lfs = path.endswith(hub.lfs_suffixes)
            oid = (
                None if path not in files else hashlib.sha256(files[path]).hexdigest() if is_lfs else _blob(files[path])
            )
            return {"path": path, "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False, "oid": oid}

        def _commit(self, files: dict[str, bytes], lines: list[dict[str, dict[str, str]]]) -> None:
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    data = hub.objects[value["oid"]]
                    assert hashlib.sha256(data).hexdigest() == value["oid"]
                    files[value["path"]] = data
                else:
                    assert line["key"] == "deletedFile", line["key"]
                    del files[value["path"]]

        def _create(self, asked: dict[str, str]) -> None:
            kind = f"{asked.get('type', 'model')}s"
            name = f"{kind}/{asked['organization']}/{asked['name']}"
            status = 409 if name in hub.repositories else 200
            if status == 200:
                hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
            self._send(status, {"url": f"{hub.url}/{name.removeprefix('models/')}"})

        def _batch(self, asked: dict[str, list[dict[str, str]]]) -> None:
            rows = []
            for one in asked["objects"]:
                is_there = one["oid"] in hub.objects
                actions = {} if is_there else {"actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}}
                rows.append({"oid": one["oid"], "size": one["size"], **actions})
            self._send(200, {"transfer": "basic", "objects": rows})

        def _send(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _blob(data: bytes) -> str:
    """Name of a file's content in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
