"""What a stage opens that talks to models: the replies of this machine, and their archive in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from longalign_core.chat_client.archive import SAVE_SECONDS, Archive, shelf_of
from longalign_core.chat_client.calls import ChatRequest
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.config.runtime import Runtime
from longalign_core.execution import open_store


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """The calls of one stage to one model.

    Attributes:
        responses: Every reply that this machine or another one got, and its notes.
        archive: Where they are kept for good.
    """

    responses: ResponseStore
    archive: Archive

    def request_of(self, key: str) -> ChatRequest | None:
        """The whole request that was answered; its document comes from the archive where it is not here.

        Raises:
            StoreError: See `ResponseStore.request_of`.
        """
        return self.responses.request_of(key, self.archive.text)


@contextmanager
def open_calls(name: str, model: str, runtime: Runtime, *, save_seconds: float = SAVE_SECONDS) -> Iterator[ModelCalls]:
    """Open the replies to a stage's calls to a model, archived ones included.

    What comes inside the block is archived meanwhile and at its end, also when that is an error.
    Several may be open at once, also of one name: they share a file and keep to shelves of their own.

    Args:
        name: Of the local file, such as "instruct".
        model: As requests name it.
        runtime: The scratch folder and the store.
        save_seconds: Between two saves.

    Raises:
        StoreError: The file or the store cannot be used; at the end: the last save failed, and nothing is lost.
    """
    objects = open_store(runtime).files
    shelf = shelf_of(name, model)
    with (
        ResponseStore(runtime.scratch / "responses" / f"{name}.sqlite", shelf) as responses,
        _archived(Archive(objects, shelf, (responses,), texts=responses), save_seconds) as archive,
    ):
        responses.on_new_row = archive.note_new_row
        yield ModelCalls(responses, archive)


@contextmanager
def _archived(archive: Archive, save_seconds: float) -> Iterator[Archive]:
    """One archive, fetched and then saved. A file whose rows concern every model has one of its own, on one shelf."""
    archive.fetch()
    with archive.saving(save_seconds):
        yield archive
