"""Source trees, as folders or archives: one document a repository.

Which parts of a location are repositories, so that the usual layouts work without a setting:

1. Every archive is one, at the top of the location or in a top-level folder that is not one itself.
2. The location as a whole is one when it directly holds a project file (`pyproject.toml`,
   `Cargo.toml`, …), or when it directly holds source files and none of its top-level folders
   directly holds a project file or a licence.
3. Otherwise each top-level folder is one. A top-level folder that directly holds no file stands for
   an owner (`owner/name`) when a folder in it has a project file, licence or README; then those
   second-level folders are the repositories.

Other files at the top of the location belong to no repository and are rejects.
"""

# ruff: noqa: SIM905 (lists of words read better as words)
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath

from longalign_core.config.corpus_formats import RepositoryCorpus
from longalign_core.corpora.archives import (
    Member,
    UnsafeMember,
    archive_members,
    archive_stem,
    is_archive,
    reporting_damage,
)
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.licences import is_licence_file
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.repository_files import unwanted_by_name
from longalign_core.corpora.repository_text import SourceText, is_readme
from longalign_core.errors import DataError
from longalign_core.records import Reject
from longalign_core.source_files import SourceFile

_PROJECT_FILES = frozenset(
    "pyproject.toml setup.py setup.cfg package.json Cargo.toml go.mod pom.xml build.gradle build.gradle.kts "
    "CMakeLists.txt configure.ac composer.json Gemfile mix.exs Package.swift meson.build".split()
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A repository that lies in a folder. `name` is its path below the location; empty for the location itself."""

    name: str
    files: tuple[SourceFile, ...]


def units(files: Sequence[SourceFile], config: RepositoryCorpus) -> Iterator[Unit | Reject]:
    """Repositories of a location by the module's rules, and a reject for every file outside."""
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
    """Read a repository as one document: README first, then by path, a header before each file.

    Left out and said in one reject a repository and cause: vendored, generated, minified, hidden,
    binary, oversized, empty and lock files. Archive members that point out of the archive or are no
    regular files are refused, a reject each. See `reading.Reader` and the module's rules.
    """
    if len(unit.files) == 1 and unit.files[0].relative_path == unit.name and is_archive(unit.name):
        yield from _read_archive(unit.files[0], config)
    else:
        yield from _read_repository(unit.name, unit.name, _tree_members(unit), config)


def find_repositories(files: Sequence[SourceFile]) -> Iterator[Tree | SourceFile]:
    """Repositories of a location, by the module's rules: trees, and single files (archives, strays).

    Args:
        files: All files of the location, sorted by relative path.
    """
    direct = [file for file in files if "/" not in file.relative_path]
    deeper = [file for file in files if "/" in file.relative_path]
    folders = {top: tuple(members) for top, members in groupby(deeper, key=partial(_part, 0))}
    strays = [file for file in direct if not is_archive(file.relative_path)]
    holds_several = len(strays) < len(direct) or any(
        _is_project(members, depth=1, readme_counts=False) for members in folders.values()
    )
    if (
        any(file.relative_path in _PROJECT_FILES for file in strays)
        or (any(_is_code(file) for file in strays) and not holds_several)
        or (strays and not folders and not holds_several)
    ):
        yield Tree("", tuple(files))
        return
    yield from direct
    for top, members in folders.items():
        yield from _repositories_in(top, members)


def _repositories_in(top: str, members: tuple[SourceFile, ...]) -> Iterator[Tree | SourceFile]:
    direct = [file for file in members if file.relative_path.count("/") == 1]
    if any(not is_archive(file.relative_path) for file in direct):
        yield Tree(top, members)
        return
    yield from direct
    deeper = [file for file in members if file.relative_path.count("/") > 1]
    inner = {name: tuple(group) for name, group in groupby(deeper, key=partial(_part, 1))}
    if direct or any(_is_project(group, depth=2, readme_counts=True) for group in inner.values()):
        yield from (Tree(f"{top}/{name}", group) for name, group in inner.items())
    elif deeper:
        yield Tree(top, tuple(deeper))


def _is_project(members: Iterable[SourceFile], *, depth: int, readme_counts: bool) -> bool:
    names = [_part(-1, file) for file in members if file.relative_path.count("/") == depth]
    return any(name in _PROJECT_FILES or is_licence_file(name) or (readme_counts and is_readme(name)) for name in names)


def _is_code(file: SourceFile) -> bool:
    path = file.relative_path
    is_prose = is_readme(path) or is_licence_file(path) or path.lower().endswith((".md", ".txt", ".rst"))
    return not is_prose and unwanted_by_name(path, file.size) is None


def _part(index: int, file: SourceFile) -> str:
    return file.relative_path.split("/")[index]


def _tree_members(unit: Unit) -> Iterator[Member]:
    start = 0 if unit.name == "." else len(unit.name) + 1
    for file in unit.files:
        yield Member(file.relative_path[start:], file.size, partial(_read_whole, file))


def _read_whole(file: SourceFile) -> bytes:
    with file.open() as stream:
        return stream.read(file.size)


def _read_archive(file: SourceFile, config: RepositoryCorpus) -> Iterator[RawDocument | Reject]:
    path = file.relative_path
    try:
        with reporting_damage(path), file.open() as stream:
            yield from _read_repository(path, path, archive_members(stream, path), config)
    except DataError as error:
        yield reject(config, path, "broken archive", str(error))


def _read_repository(
    name: str, origin: str, members: Iterable[Member | UnsafeMember], config: RepositoryCorpus
) -> Iterator[RawDocument | Reject]:
    source = SourceText()
    for member in members:
        if isinstance(member, UnsafeMember):
            yield reject(config, f"{name}/{member.path}", "unsafe archive member", member.why)
            continue
        source.add(member)
        if source.num_characters > MAX_TEXT_BYTES:
            yield reject(config, name, "too large", f"more than {MAX_TEXT_BYTES} characters of source text")
            return
    for cause, (num_files, example) in sorted(source.left_out.items()):
        yield reject(config, name, f"{cause} files left out", f"{num_files} files, the first {example}")
    if not source.texts:
        yield reject(config, name, "no source files", "no text file is left after what is left out")
        return
    title = archive_stem(origin) if is_archive(origin) else PurePosixPath(name).name or None
    yield RawDocument(name, source.joined(), origin=origin, title=title, licence=source.licence(), is_code=True)
