"""What tests of the archive share: machines with scratch folders of their own, and replies to put there."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from longalign_core.chat_client.archive import Archive, Objects
from longalign_core.chat_client.calls import ChatReply, ChatRequest
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.stages.model_calls import ModelCalls, open_calls, open_ledger
from longalign_core.store.files import open_files
from tests.chat_setup import request_of

SHELF = "instruct-m-00000000"
DOCUMENT = "".join(f"Sentence {number} says {number * 7919 % 1000}. " for number in range(4000))


def request_about(number: int, document: str = DOCUMENT) -> ChatRequest:
    """The question of this number about a document that others share."""
    return replace(request_of(f"{document}Question {number}?"), shared_characters=len(document))


def reply_of(text: str) -> ChatReply:
    """A reply as a model gave it."""
    return ChatReply(text=text, finish_reason="stop", model="m", prompt_tokens=3, reply_tokens=None, stored=False)


class Watched:
    """The objects of a store, with the names that were read and created."""

    def __init__(self, url: str) -> None:
        self._files = open_files(url)
        self.url = self._files.url
        self.read_names: list[str] = []
        self.created: list[str] = []

    def read(self, name: str) -> tuple[bytes, str]:
        self.read_names.append(name)
        return self._files.read(name)

    def create(self, name: str, data: bytes) -> None:
        self._files.create(name, data)
        self.created.append(name)

    def sizes(self, prefix: str) -> dict[str, int]:
        return self._files.sizes(prefix)


@dataclass(frozen=True)
class Machine:
    """One machine's replies and its view of the store."""

    responses: ResponseStore
    archive: Archive
    objects: Watched

    def put(self, *numbers: int, text: str = "words") -> None:
        for number in numbers:
            self.responses.put(request_about(number), reply_of(f"{text} {number}"))

    def texts(self, *numbers: int) -> list[str | None]:
        found = [self.responses.get(request_about(number).key) for number in numbers]
        return [None if reply is None else reply.text for reply in found]


@contextmanager
def machine(scratch: Path, store_url: str, shelf: str = SHELF) -> Iterator[Machine]:
    """A machine with a scratch folder of its own, which has fetched nothing yet."""
    objects = Watched(store_url)
    with ResponseStore(scratch / "responses" / "instruct.sqlite", shelf) as responses:
        archive = Archive(objects, shelf, (responses,), texts=responses)
        responses.on_new_row = archive.note_new_row
        yield Machine(responses, archive, objects)


def names(objects: Objects, folder: str) -> list[str]:
    """Names of the objects under a folder of the archive."""
    return sorted(objects.sizes(f"_replies/{folder}"))


def num_waiting(path: Path) -> int:
    """Replies of a local file that wait for the archive."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT count(*) FROM replies WHERE NOT archived").fetchone()[0]
    finally:
        connection.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again, up to a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@contextmanager
def opened_calls(name: str, model: str, runtime: Runtime, **options: float) -> Iterator[ModelCalls]:
    """What a stage opens to ask a model, with its ledger."""
    with (
        open_ledger(runtime, **options) as ledger,
        open_calls(name, "generator", ChatModel(model=model), runtime, ledger, **options) as calls,
    ):
        yield calls
