"""Questions and their answers as the text of one document, and several of one tag together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from longalign_core.config.corpus_formats import StackExchangeCorpus
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.dumps.spool import Post
from longalign_core.corpora.markup.post_html import html_text
from longalign_core.corpora.reading import RawDocument
from longalign_core.corpora.unpacking import without_compression
from longalign_core.errors import DataError
from longalign_core.records import Reject

_SITE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_CREATIVE_COMMONS = re.compile(r"CC (BY(?:-[A-Z]{2})*) (\d\.\d)")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where threads come from.

    Attributes:
        path: The file, for people.
        prefix: What stands before the names of its posts.
        site: Its site on the web; None when it is not known.
    """

    path: str
    prefix: str
    site: str | None


@dataclass(frozen=True, slots=True)
class Thread:
    """A question with its answers."""

    id: int
    title: str
    text: str
    created: str | None
    licences: frozenset[str]


def origin_of(path: str, member: str | None) -> Origin:
    """Site of a dump by the innermost name that looks like one: a folder's, the archive's, the file's.

    `math.stackexchange.com.7z`, `stackoverflow.com-Posts.7z` and `math.stackexchange.com/Posts.xml`
    say it. Where none does, names begin with the path.
    """
    names = [part for part in PurePosixPath(without_compression(path)).parts if part != "/"]
    names[-1] = re.sub(r"(?i)\.7z$", "", names[-1])
    names += PurePosixPath(member).parts if member else ()
    shown = f"{path}/{member}" if member else path
    for name in reversed(names):
        bare = re.sub(r"(?i)-posts(\.xml)?$", "", name).lower()
        if _SITE.fullmatch(bare) and bare != "posts.xml":
            return Origin(shown, bare, bare)
    return Origin(shown, path, None)


def thread_of(number: int, posts: Iterable[Post], origin: Origin, config: StackExchangeCorpus) -> Thread | Reject:
    """Join a question with its answers: the accepted one, then by score, then by id."""
    question: Post | None = None
    answers: list[Post] = []
    size = 0
    name = post_name(origin, number)
    for post in posts:
        size += len(post.body)
        if size > MAX_TEXT_BYTES:
            return reject(config, name, "too large", f"the thread has more than {MAX_TEXT_BYTES} characters")
        if post.id == number and question is None and not answers:
            question = post
        else:
            answers.append(post)
    if question is None:
        return reject(
            config, name, "answer without question", f"{len(answers)} answers to a question that the dump has not"
        )
    if not answers:
        return reject(config, name, "question without answer", f"score {question.score}")
    answers.sort(key=lambda one: (one.id != question.accepted, -one.score, one.id))
    try:
        text = _joined(question, answers)
    except (DataError, RecursionError) as error:
        return reject(config, name, "unreadable mark-up", str(error))
    licences = {_spdx(post.licence) if post.licence else config.licence for post in (question, *answers)}
    return Thread(number, question.title, text, question.created, frozenset(licence for licence in licences if licence))


def document_of(thread: Thread, origin: Origin) -> RawDocument:
    """The document of one thread."""
    return RawDocument(
        post_name(origin, thread.id),
        thread.text,
        origin=f"{origin.path}: question {thread.id}",
        url=f"https://{origin.site}/questions/{thread.id}" if origin.site else None,
        title=thread.title or None,
        licence=_all_of(thread.licences),
        created=thread.created,
    )


def aggregate_of(tag: str, threads: Sequence[Thread], origin: Origin) -> RawDocument:
    """The document of several threads of one tag, marked so; it is named by the first of them."""
    first, last = threads[0], threads[-1]
    return RawDocument(
        f"{origin.prefix}/aggregated/{tag or 'untagged'}/{first.id}",
        "\n\n".join(thread.text for thread in threads),
        origin=f"aggregated: {origin.path}: {len(threads)} questions, {first.id} to {last.id}",
        url=f"https://{origin.site}/questions/tagged/{quote(tag)}" if origin.site and tag else None,
        title=f"Questions tagged {tag}" if tag else "Questions without a tag",
        licence=_all_of(frozenset[str]().union(*(thread.licences for thread in threads))),
        created=max((thread.created for thread in threads if thread.created), default=None),
    )


def post_name(origin: Origin, post_id: int | str) -> str:
    """What names a post in the corpus."""
    return f"{origin.prefix}/{post_id}"


def _joined(question: Post, answers: Sequence[Post]) -> str:
    parts = [f"# {question.title}"] if question.title else []
    if question.tags:
        parts.append(f"Tags: {', '.join(question.tags)}")
    parts.append(html_text(question.body))
    for answer in answers:
        kind = "Accepted answer" if answer.id == question.accepted else "Answer"
        parts += [f"## {kind} (score {answer.score})", html_text(answer.body)]
    return "\n\n".join(part for part in parts if part)


def _spdx(words: str) -> str:
    """SPDX identifier of what a row's ContentLicense says, or its own words."""
    found = _CREATIVE_COMMONS.fullmatch(words.strip())
    return f"CC-{found.group(1)}-{found.group(2)}" if found else words.strip()


def _all_of(licences: frozenset[str]) -> str | None:
    """The licences that hold together, as an SPDX expression."""
    return " AND ".join(sorted(licences)) or None
