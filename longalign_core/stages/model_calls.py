"""What a stage opens that talks to models: replies, what they cost, and the archive of both in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from longalign_core.chat_client.archive import SAVE_SECONDS, Archive, shelf_of
from longalign_core.chat_client.budget import Budget, open_budget
from longalign_core.chat_client.calls import ChatRequest
from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.execution import open_store
from longalign_core.stage import current_address

LEDGER = "ledger.sqlite"


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """The calls of one stage to one model.

    Attributes:
        responses: Every reply that this machine or another one got, and its notes.
        archive: Where they are kept for good.
        spending: The budget that further calls stay within.
    """

    responses: ResponseStore
    archive: Archive
    spending: Budget

    def request_of(self, key: str) -> ChatRequest | None:
        """The whole request that was answered; its document comes from the archive where it is not here.

        Raises:
            StoreError: See `ResponseStore.request_of`.
        """
        return self.responses.request_of(key, self.archive.text)


@contextmanager
def open_ledger(runtime: Runtime, *, save_seconds: float = SAVE_SECONDS) -> Iterator[Ledger]:
    """Open the ledger of what model calls cost; rows of other machines are fetched, new ones archived.

    Raises:
        StoreError: The file or the store cannot be used; at the end: the last save failed, and nothing is lost.
    """
    files = open_store(runtime).files
    with (
        Ledger(runtime.scratch / "responses" / LEDGER) as ledger,
        _archived(Archive(files, "all", (ledger,)), save_seconds),
    ):
        yield ledger


@contextmanager
def open_calls(
    name: str,
    role: str,
    model: ChatModel,
    runtime: Runtime,
    ledger: Ledger,
    *,
    batch: bool = False,
    save_seconds: float = SAVE_SECONDS,
) -> Iterator[ModelCalls]:
    """Open the replies to a stage's calls to a model, archived ones included, and the budget of the product it makes.

    What comes inside the block is archived meanwhile and at its end, also when that is an error.
    Several may be open at once, also of one name: they share a file and keep to shelves of their own.

    Args:
        name: Of the local file, such as "instruct".
        role: Whose calls they are.
        model: Its name is what requests say.
        runtime: The scratch folder, the store, the caps and the prices.
        ledger: Open.
        batch: Whether calls go through the batch interface.
        save_seconds: Between two saves.

    Raises:
        InputError: The price file is wrong, or lacks the model while a cap in dollars is set. Nothing was spent.
        StoreError: The file or the store cannot be used; at the end: the last save failed, and nothing is lost.
    """
    spending = open_budget(ledger, current_address(), role, model, runtime, batch=batch)
    shelf = shelf_of(name, model.model)
    with (
        ResponseStore(runtime.scratch / "responses" / f"{name}.sqlite", shelf) as responses,
        _archived(Archive(open_store(runtime).files, shelf, (responses,), texts=responses), save_seconds) as archive,
    ):
        responses.on_new_row = archive.note_new_row
        yield ModelCalls(responses, archive, spending)


@contextmanager
def _archived(archive: Archive, save_seconds: float) -> Iterator[Archive]:
    """One archive, fetched and then saved."""
    archive.fetch()
    with archive.saving(save_seconds):
        yield archive
