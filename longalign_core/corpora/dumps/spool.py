"""Posts put aside on disk, so that a question meets its answers whatever the order of rows."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longalign_core.corpora.cleaning import MAX_TEXT_BYTES

FABRICATED_IDS = ("1000000001", "1000000010")
"""Rows that every dump since 2024 carries and no site has: a made-up question and a made-up answer."""

_MAX_ID = 1 << 31
_SCHEMA = """
CREATE TABLE posts (key INTEGER PRIMARY KEY, score INTEGER, accepted INTEGER, created TEXT, licence TEXT,
                    title TEXT, tags TEXT, body TEXT);
CREATE TABLE threads (tag TEXT, id INTEGER, PRIMARY KEY (tag, id)) WITHOUT ROWID;
CREATE TABLE answered (id INTEGER PRIMARY KEY);
CREATE TABLE questions (id INTEGER PRIMARY KEY);
CREATE TABLE losses (number INTEGER PRIMARY KEY, name TEXT, reason TEXT, detail TEXT);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A question or an answer; `title`, `tags` and `accepted` are a question's."""

    id: int
    score: int
    accepted: int | None
    created: str | None
    licence: str | None
    title: str
    tags: tuple[str, ...]
    body: str


@dataclass(frozen=True, slots=True)
class Loss:
    """A row that was left out; `name` is its id, or None where it has none."""

    name: str | None
    reason: str
    detail: str


class SpoolWriter:
    """Takes in rows and makes a spool of them. Memory does not grow with their number.

    Posts are kept by question, so that a thread lies together and is read in one go.

    Args:
        path: The file to be made. It needs about the space that the Posts.xml takes unpacked.
        min_score: Answers below it are left out.
        by_tag: Order threads by their first tag, then by id; else by id.
    """

    def __init__(self, path: Path, *, min_score: int | None, by_tag: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._path, self._min_score, self._by_tag = path, min_score, by_tag
        # One process alone uses the file: no locks, which some shared file systems lack.
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?nolock=1", uri=True, isolation_level=None)
        # What a kill leaves half made is made again: no journal is needed.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "page_size=16384", "cache_size=-16384"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(_SCHEMA)
        self._database.execute("BEGIN")
        self._other_types: Counter[str] = Counter()
        self._num_low = 0

    def add(self, row: dict[str, str]) -> None:
        """Take in the attributes of a row."""
        post_id = row.get("Id")
        if post_id in FABRICATED_IDS:
            self.lose("fabricated row", "it stands in every dump and on no site", post_id)
            return
        post_type = row.get("PostTypeId")
        thread = row.get("ParentId") if post_type == "2" else post_id
        if not (post_type and _is_id(post_id) and (_is_id(thread) or post_type not in ("1", "2"))):
            found = ", ".join(f"{name}={row.get(name)!r:.40}" for name in ("Id", "PostTypeId", "ParentId"))
            self.lose("broken row", f"no post: {found}", post_id)
        elif post_type not in ("1", "2"):
            self._other_types[post_type] += 1
        elif "DeletionDate" in row:
            self.lose("deleted post", f"on {row['DeletionDate']:.40}", post_id)
        elif len(row.get("Body", "")) > MAX_TEXT_BYTES:
            self.lose("too large", f"{len(row['Body'])} characters, more than {MAX_TEXT_BYTES}", post_id)
        elif post_type == "2" and self._min_score is not None and _number(row.get("Score")) < self._min_score:
            self._num_low += 1
        else:
            self._keep(int(post_id or 0), int(thread or 0), row)

    def lose(self, reason: str, detail: str, name: str | None = None) -> None:
        """Note what was left out."""
        self._database.execute("INSERT INTO losses VALUES (NULL, ?, ?, ?)", (name, reason, detail))

    def finish(self, member: str | None) -> None:
        """Complete the spool; `member` is the path of the Posts.xml in its archive."""
        if self._num_low:
            self.lose("answers below min_score", f"{self._num_low} answers with a score below {self._min_score}")
        for post_type, count in sorted(self._other_types.items()):
            self.lose("other post type", f"{count} rows of PostTypeId {post_type:.40}, neither question nor answer")
        self._database.execute(
            "INSERT INTO threads SELECT '', id FROM (SELECT id FROM answered EXCEPT SELECT id FROM questions)"
        )
        self._database.execute("INSERT INTO facts VALUES ('member', ?)", (member,))
        self._database.execute("COMMIT")
        self._database.close()
        with self._path.open("rb+") as stream:
            os.fsync(stream.fileno())

    def close(self) -> None:
        """Give up what is not finished."""
        self._database.close()

    def _keep(self, post_id: int, thread: int, row: dict[str, str]) -> None:
        is_question = row["PostTypeId"] == "1"
        tags = [tag for tag in row.get("Tags", "").replace("<", "|").replace(">", "|").split("|") if tag]
        values = (
            thread << 32 | (0 if is_question else post_id),
            _number(row.get("Score")),
            _number(row.get("AcceptedAnswerId")) or None,
            row.get("CreationDate"),
            row.get("ContentLicense"),
            row.get("Title", "") if is_question else None,
            "|".join(tags) if is_question else None,
            row.get("Body", ""),
        )
        done = self._database.execute("INSERT OR IGNORE INTO posts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        if not done.rowcount:
            self.lose("repeated row", "an earlier row has its id", str(post_id))
        elif is_question:
            self._database.execute("INSERT INTO questions VALUES (?)", (thread,))
            tag = tags[0] if tags and self._by_tag else ""
            self._database.execute("INSERT INTO threads VALUES (?, ?)", (tag, thread))
        else:
            self._database.execute("INSERT OR IGNORE INTO answered VALUES (?)", (thread,))


class Spool:
    """A finished spool."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)
        (self.member,) = self._database.execute("SELECT value FROM facts WHERE name = 'member'").fetchone()
        (self.num_losses,) = self._database.execute("SELECT COUNT(*) FROM losses").fetchone()

    def losses(self, start: int) -> Iterator[Loss]:
        """What was left out, from the number `start` on, in the order of the file."""
        rows = self._database.execute("SELECT name, reason, detail FROM losses WHERE number > ?", (start,))
        return (Loss(*row) for row in rows)

    def threads(self, start: int) -> Iterator[tuple[str, int]]:
        """Tag and question id of every thread, in their order, but the first `start`."""
        query = "SELECT tag, id FROM threads ORDER BY tag, id LIMIT -1 OFFSET ?"
        return iter(self._database.execute(query, (start,)))

    def posts(self, thread: int) -> Iterator[Post]:
        """The posts of a thread: the question, which may be missing, then answers by id."""
        query = "SELECT key, score, accepted, created, licence, title, tags, body FROM posts WHERE key >= ? AND key < ?"
        rows = self._database.execute(query, (thread << 32, (thread + 1) << 32))
        for key, score, accepted, created, licence, title, tags, body in rows:
            yield Post(
                id=thread if title is not None else key & 0xFFFF_FFFF,
                score=score,
                accepted=accepted,
                created=created,
                licence=licence,
                title=title or "",
                tags=tuple(tags.split("|")) if tags else (),
                body=body,
            )

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def _is_id(value: str | None) -> bool:
    return value is not None and value.isascii() and value.isdigit() and len(value) < 12 and 0 < int(value) < _MAX_ID


def _number(value: str | None) -> int:
    """A whole number; 0 where there is none."""
    try:
        return max(-_MAX_ID, min(_MAX_ID, int(value or 0)))
    except ValueError:
        return 0
