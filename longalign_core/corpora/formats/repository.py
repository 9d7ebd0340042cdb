"""Source trees as folders, archives or bare git repositories: one document a repository, or several.

Where a location holds repositories, see `repositories.layout`; how one becomes several documents, see
`repositories.parts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from longalign_core.config.corpus_formats import RepositoryCorpus
from longalign_core.corpora.archives import (
    DamagedSourceError,
    Member,
    UnsafeMember,
    archive_members,
    archive_stem,
    is_archive,
    reporting_damage,
)
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.repositories.git_tree import is_bare_repository, open_head
from longalign_core.corpora.repositories.layout import Tree, find_repositories
from longalign_core.corpora.repositories.parts import repository_parts
from longalign_core.corpora.repositories.source_text import SourceText
from longalign_core.records import Reject
from longalign_core.source_files import SourceFile

MAX_SPLIT_CHARACTERS = 64 << 20
"""Most source text of a repository that is cut into sub-packages; all of it is held in memory."""


@dataclass(frozen=True, slots=True)
class _OpenRepository:
    """Members of a repository while it is open, and what its format says of it as a whole."""

    members: Iterator[Member | UnsafeMember]
    created: str | None = None
    url: str | None = None


def units(files: Sequence[SourceFile], config: RepositoryCorpus) -> Iterator[Unit | Reject]:
    """Repositories of a location by the rules of `repositories.layout`, and a reject for every file outside."""
    for found in find_repositories(files):
        if isinstance(found, Tree):
            yield Unit(found.name or ".", found.files)
        elif is_archive(found.relative_path):
            yield Unit(found.relative_path, (found,))
        else:
            yield reject(
                config, found.relative_path, "outside any repository", "expected folders or archives beside it"
            )


def read(unit: Unit, config: RepositoryCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read a repository as one document, or as one a sub-package; see `reading.Reader`.

    READMEs stand first, then the files in the configured order, a header before each. Left out and
    said in one reject a repository and cause: vendored, generated, minified, hidden, binary,
    oversized, empty and lock files. Members that lead out of the repository or are no regular files
    are refused, a reject each. Of a damaged archive or git repository nothing is kept: half a
    repository would look like a whole one. The position is the number of documents yielded.
    """
    name = unit.name
    source = SourceText()
    most = MAX_TEXT_BYTES if config.max_characters is None else MAX_SPLIT_CHARACTERS
    rejects_wanted = cursor.position == 0
    kind = _kind(unit)
    try:
        with _open(unit, kind, cursor) as repository:
            for member in repository.members:
                if isinstance(member, UnsafeMember):
                    if rejects_wanted:
                        yield reject(config, f"{name}/{member.path}", "files left out: unsafe", member.why)
                    continue
                source.add(member)
                if source.num_characters > most:
                    yield reject(config, name, "too large", f"more than {most} characters of source text")
                    return
    except DamagedSourceError as error:
        yield reject(config, name, f"broken {kind}", str(error))
        return
    if kind == "archive":
        source.drop_only_top_folder()
    if rejects_wanted:
        for cause, (num_files, example) in sorted(source.left_out.items()):
            yield reject(config, name, f"files left out: {cause}", f"{num_files} files, the first {example}")
    if not source.texts:
        yield reject(config, name, "no source files", _without_source(source))
        return
    title = archive_stem(name) if kind == "archive" else PurePosixPath(name).name.removesuffix(".git") or None
    for number, part in enumerate(repository_parts(source, config.order, config.max_characters), start=1):
        if number <= cursor.position:
            continue
        cursor.position = number
        yield RawDocument(
            f"{name}//{part.path}" if part.path else name,
            part.text,
            origin=f"{name}//{part.path}" if part.path else name,
            url=repository.url,
            title="/".join(filter(None, (title, part.extent))) or None,
            licence=part.licence,
            created=repository.created,
            is_code=True,
        )


def _kind(unit: Unit) -> str:
    if len(unit.files) == 1 and unit.files[0].relative_path == unit.name and is_archive(unit.name):
        return "archive"
    paths = (file.relative_path.removeprefix(_folder(unit)) for file in unit.files)
    is_bare = is_bare_repository(paths, is_named_so=unit.name.endswith(".git"))
    return "git repository" if is_bare else "folder"


@contextmanager
def _open(unit: Unit, kind: str, cursor: Cursor) -> Iterator[_OpenRepository]:
    if kind == "archive":
        path = unit.name
        with reporting_damage(path), unit.files[0].open() as stream:
            yield _OpenRepository(archive_members(stream, path))
    elif kind == "git repository":
        with open_head(unit.files, _folder(unit), cursor.scratch) as head:
            yield _OpenRepository(head.members, head.created, head.url)
    else:
        start = len(_folder(unit))
        yield _OpenRepository(
            Member(file.relative_path[start:], file.size, partial(_read_whole, file)) for file in unit.files
        )


def _folder(unit: Unit) -> str:
    return "" if unit.name == "." else f"{unit.name}/"


def _read_whole(file: SourceFile) -> bytes:
    with file.open() as stream:
        return stream.read(file.size)


def _without_source(source: SourceText) -> str:
    causes = ", ".join(f"{num_files} {cause}" for cause, (num_files, _) in sorted(source.left_out.items()))
    return f"no text file is left; left out: {causes}" if causes else "it holds no files"
