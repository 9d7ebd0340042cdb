"""Posts.xml of Stack Exchange dumps: a question with its answers a document, or many of one tag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

from longalign_core.config.corpus_formats import StackExchangeCorpus
from longalign_core.corpora.cleaning import reject
from longalign_core.corpora.dumps.posts import is_posts_file, send_rows
from longalign_core.corpora.dumps.spool import Spool, SpoolWriter
from longalign_core.corpora.dumps.threads import (
    Origin,
    Thread,
    aggregate_of,
    document_of,
    origin_of,
    post_name,
    thread_of,
)
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.unpacking import without_compression
from longalign_core.records import Reject
from longalign_core.source_files import SourceFile

_OTHER_FILES = ("badges", "comments", "posthistory", "postlinks", "tags", "users", "votes")
_SPOOL = "posts.sqlite"


def units(files: Sequence[SourceFile], config: StackExchangeCorpus) -> Iterator[Unit | Reject]:
    """A unit each Posts.xml and .7z; a reject for every other file."""
    for file in files:
        path = file.relative_path
        stem = PurePosixPath(without_compression(path.lower())).name.removesuffix(".xml").removesuffix(".7z")
        if stem.rpartition("-")[2] in _OTHER_FILES:
            yield reject(config, path, "other dump file", "only posts are read")
        elif is_posts_file(path):
            yield Unit(path, (file,))
        else:
            yield reject(config, path, "other file type", "expected Posts.xml, plain, compressed or in a .7z")


def read(unit: Unit, config: StackExchangeCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read the threads of a dump by question id, or by tag where they are joined; see `reading.Reader`.

    Rows are first put aside in scratch, as answers may stand anywhere: that takes about the space of
    the unpacked Posts.xml. The position is the number of losses, then of threads, given so far.

    Left out are the two fabricated rows, questions that no answer is left of, answers whose question
    the dump has not, and posts that are neither. Of a file that breaks off, what came before is kept.
    """
    (file,) = unit.files
    finished = cursor.scratch / _SPOOL
    if not finished.exists():
        _put_aside(file, config, finished)
    with closing(Spool(finished)) as spool:
        origin = origin_of(file.relative_path, spool.member)
        for loss in spool.losses(cursor.position):
            cursor.position += 1
            name = post_name(origin, loss.name) if loss.name else file.relative_path
            yield reject(config, name, loss.reason, f"{origin.path}: {loss.detail}")
        start = cursor.position - spool.num_losses
        if config.aggregate_characters is None:
            for _, number in spool.threads(start):
                cursor.position += 1
                thread = thread_of(number, spool.posts(number), origin, config)
                yield document_of(thread, origin) if isinstance(thread, Thread) else thread
        else:
            yield from _aggregated(spool, start, config.aggregate_characters, origin, config, cursor)


def _put_aside(file: SourceFile, config: StackExchangeCorpus, finished: Path) -> None:
    unfinished = finished.with_suffix(".part")
    by_tag = config.aggregate_characters is not None
    with closing(SpoolWriter(unfinished, min_score=config.min_score, by_tag=by_tag)) as writer:
        writer.finish(send_rows(file, writer.add, writer.lose))
    unfinished.replace(finished)


def _aggregated(
    spool: Spool, start: int, enough: int, origin: Origin, config: StackExchangeCorpus, cursor: Cursor
) -> Iterator[RawDocument | Reject]:
    """Threads of one tag together until they are long enough; the last of a tag may be shorter.

    A thread long enough by itself stays one. The position moves only where no thread is waiting.
    """
    waiting: list[Thread] = []
    size, waiting_tag = 0, ""
    done = spool.num_losses + start
    for tag, number in spool.threads(start):
        if tag != waiting_tag and waiting:
            cursor.position = done
            yield _together(waiting_tag, waiting, origin)
            waiting, size = [], 0
        waiting_tag = tag
        done += 1
        thread = thread_of(number, spool.posts(number), origin, config)
        if isinstance(thread, Thread) and len(thread.text) < enough:
            waiting.append(thread)
            size += len(thread.text)
            if size >= enough:
                cursor.position = done
                yield _together(tag, waiting, origin)
                waiting, size = [], 0
            continue
        if not waiting:
            cursor.position = done
        yield document_of(thread, origin) if isinstance(thread, Thread) else thread
    if waiting:
        cursor.position = done
        yield _together(waiting_tag, waiting, origin)


def _together(tag: str, threads: Sequence[Thread], origin: Origin) -> RawDocument:
    return document_of(threads[0], origin) if len(threads) == 1 else aggregate_of(tag, threads, origin)
