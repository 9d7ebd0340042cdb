"""Keeping replies, draws and the ledger in the artifact store, so that they outlive a machine's disk.

Under the store's root lie `_replies/{kind}/{shelf}/{digest}.jsonl.zst`, segments of rows, and
`_replies/texts/{sha256}.zst`, the texts that requests begin with, each once. Both are named by their
content and created only if absent, so retries, races and several machines do no harm. A text is
there before the segment that refers to it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from backports import zstd

from longalign_core.chat_client.stored_calls import from_json, to_bytes, to_json
from longalign_core.errors import StoreError

log = logging.getLogger(__name__)
_ROOT = "_replies"
_DIGEST_DIGITS = 32
_SEGMENT = re.compile(rf"/([0-9a-f]{{{_DIGEST_DIGITS}}})\.jsonl\.zst$")
SAVE_SECONDS = 30.0
# A row without a shared text may hold a request of 64k tokens; so many of them still fit into memory.
SEGMENT_ROWS = 200


class Archivable(Protocol):
    """A local file of rows that are only ever added, copied to the store in segments.

    Attributes:
        kind: Names its segments, such as "replies".
    """

    kind: str

    def unarchived(self, limit: int) -> list[tuple[int, dict[str, Any]]]:
        """Oldest rows that no segment holds yet, with their numbers, as JSON values; rows merged from one are none."""

    def mark_archived(self, numbers: Sequence[int]) -> None:
        """A segment holds these rows now."""

    def merge(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take rows of another machine's segment over; those that are here already stay as they are."""

    def merged_segments(self) -> set[str]:
        """Names of the segments whose rows are all here."""

    def remember_segment(self, name: str) -> None:
        """The rows of this segment are all here now."""


class SharedTexts(Protocol):
    """Where the texts lie that rows refer to by a sha256 in their field `text`."""

    def unarchived_text(self, sha256: str) -> bytes | None:
        """A text, compressed; None when the archive holds it."""

    def mark_text_archived(self, sha256: str) -> None:
        """The archive holds this text now."""


class Objects(Protocol):
    """What the archive needs of an artifact store: objects under a root, named by relative paths."""

    url: str

    def read(self, name: str) -> tuple[bytes, str]:
        """Content and version. Raises FileNotFoundError."""

    def create(self, name: str, data: bytes) -> None:
        """Write a new object, whole or not at all. Raises FileExistsError if there is one."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Size in bytes of every object whose name begins with the folder `prefix`."""


def shelf_of(work: str, model: str) -> str:
    """The shelf for what a stage asks a model, safe as a folder's name; a run fetches no other."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")[:60]
    return f"{work}-{readable}-{hashlib.sha256(to_bytes(model)).hexdigest()[:8]}"


class Archive:
    """One shelf of the store, and the local files whose rows it keeps. Several machines may write at once.

    Attributes:
        num_failures: Saves that failed while work went on; each was logged and tried again.
    """

    def __init__(
        self, objects: Objects, shelf: str, archivables: Sequence[Archivable], texts: SharedTexts | None = None
    ) -> None:
        """Make an archive; nothing is contacted yet.

        Args:
            objects: Of the artifact store.
            shelf: Which rows of the store may matter here; a folder's name.
            archivables: The local files, of different kinds.
            texts: Where the texts lie that rows refer to; None where none does.
        """
        self.num_failures = 0
        self._objects = objects
        self._shelf = shelf
        self._archivables = tuple(archivables)
        self._texts = texts
        self._saving = threading.Lock()
        self._due = threading.Event()
        self._ended = threading.Event()
        self._num_new = 0

    def fetch(self) -> int:
        """Take over the rows of every segment that the local files do not hold yet; the texts stay where they are.

        Returns:
            Segments that were read.

        Raises:
            StoreError: The store or a local file cannot be used, or a segment is damaged: none of its rows is taken.
        """
        num_read = 0
        for archivable in self._archivables:
            merged = archivable.merged_segments()
            for name in sorted(self._objects.sizes(self._folder(archivable))):
                if not _SEGMENT.search(name) or name in merged:
                    continue
                archivable.merge(self._rows(name))
                archivable.remember_segment(name)
                num_read += 1
        if num_read:
            log.info("took over %d segments of %s from the store", num_read, self._shelf)
        return num_read

    def save(self) -> int:
        """Put every row that no segment holds yet into the store.

        Returns:
            Rows that were put there.

        Raises:
            StoreError: The store cannot be written, or a local file cannot be used; no row is lost here.
        """
        num_saved = 0
        with self._saving:
            self._num_new = 0
            for archivable in self._archivables:
                while rows := archivable.unarchived(SEGMENT_ROWS):
                    self._save_texts(row for _, row in rows)
                    content = b"".join(to_json(row) + b"\n" for _, row in rows)
                    digest = hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS]
                    name = f"{self._folder(archivable)}/{digest}.jsonl.zst"
                    self._create(name, zstd.compress(content))
                    # In this order: a run killed between the two finds its own segment as another's would be found.
                    archivable.mark_archived([number for number, _ in rows])
                    archivable.remember_segment(name)
                    num_saved += len(rows)
        return num_saved

    def text(self, sha256: str) -> bytes:
        """A text that rows refer to, compressed.

        Raises:
            StoreError: It is not there, or the store cannot be read.
        """
        name = _text_name(sha256)
        try:
            return self._objects.read(name)[0]
        except FileNotFoundError:
            raise StoreError(
                f"the text of a stored request is gone from the store: {self._objects.url}/{name}; bring it back"
            ) from None

    def note_new_row(self) -> None:
        """A row has come to wait; with enough of them the next save comes early."""
        self._num_new += 1
        if self._num_new >= SEGMENT_ROWS:
            self._due.set()

    @contextmanager
    def saving(self, seconds: float = SAVE_SECONDS) -> Iterator[None]:
        """Save every so many seconds inside the block, earlier where many rows wait, and once at its end.

        A save that fails meanwhile is logged and tried again with the next one. So that what was paid
        for is safe, the last save comes also when the block ends by an error, which is then raised
        even if the save fails, too.

        Raises:
            StoreError: The last save failed; every row is still in its local file.
        """
        self._ended.clear()
        # A daemon: an interpreter that ends without leaving the block does not wait for it.
        thread = threading.Thread(target=self._save_again_and_again, args=(seconds,), name="archive", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._stop(thread)
            try:
                self.save()
            except Exception as failed:
                log.warning("what was paid for is only on this machine's disk: %s", failed)
            raise
        self._stop(thread)
        try:
            self.save()
        except StoreError as failed:
            raise StoreError(
                f"{failed} (every model reply is safe on this machine's disk: run again, and nothing is asked twice)"
            ) from failed

    def _stop(self, thread: threading.Thread) -> None:
        self._ended.set()
        self._due.set()
        thread.join()

    def _save_again_and_again(self, seconds: float) -> None:
        while True:
            self._due.wait(seconds)
            self._due.clear()
            if self._ended.is_set():
                return
            try:
                self.save()
            except StoreError as failed:
                self.num_failures += 1
                log.warning("model replies were not archived, which is tried again: %s", failed)

    def _folder(self, archivable: Archivable) -> str:
        return f"{_ROOT}/{archivable.kind}/{self._shelf}"

    def _rows(self, name: str) -> list[dict[str, Any]]:
        data, _ = self._objects.read(name)
        match = _SEGMENT.search(name)
        assert match, "only segments are read"
        try:
            content = zstd.decompress(data)
        except zstd.ZstdError:
            content = None
        if content is None or not hashlib.sha256(content).hexdigest().startswith(match[1]):
            raise StoreError(
                f"archived model replies are damaged: the content of {self._objects.url}/{name} is not what its name "
                "says; bring the object back, or delete it: the calls that only it holds are then paid again"
            )
        return [from_json(line) for line in content.split(b"\n") if line]

    def _save_texts(self, rows: Iterable[dict[str, Any]]) -> None:
        if self._texts is None:
            return
        for sha256 in sorted({row["text"] for row in rows if row.get("text")}):
            if content := self._texts.unarchived_text(sha256):
                self._create(_text_name(sha256), content)
                self._texts.mark_text_archived(sha256)

    def _create(self, name: str, data: bytes) -> None:
        try:
            self._objects.create(name, data)
        except FileExistsError:
            log.debug("%s is there already", name)
        except FileNotFoundError as error:
            raise StoreError(
                f"the store {self._objects.url} is not there ({error}); create it or name another"
            ) from error


def _text_name(sha256: str) -> str:
    return f"{_ROOT}/texts/{sha256}.zst"
