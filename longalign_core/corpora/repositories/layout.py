"""Which parts of a location are repositories, so that the usual layouts work without a setting.

1. The location as a whole is one when it is a bare git repository.
2. Every archive is one, at the top of the location or in a top-level folder that is not one itself.
3. The location as a whole is one when it directly holds a project file (`pyproject.toml`,
   `Cargo.toml`, …), or when it directly holds source files and none of its top-level folders is a
   bare git repository or directly holds a project file or a licence.
4. Otherwise each top-level folder is one. A top-level folder that directly holds no file stands for
   an owner (`owner/name`) when a folder in it is a bare git repository or has a project file,
   licence or README; then those second-level folders are the repositories.

Other files at the top of the location belong to no repository.
"""

# ruff: noqa: SIM905 (lists of words read better as words)
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from longalign_core.corpora.archives import is_archive
from longalign_core.corpora.repositories.git_tree import is_bare_repository
from longalign_core.corpora.repositories.kept_files import unwanted_by_name
from longalign_core.corpora.repositories.licences import is_licence_file
from longalign_core.corpora.repositories.source_text import is_readme
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


def find_repositories(files: Sequence[SourceFile]) -> Iterator[Tree | SourceFile]:
    """Repositories of a location, by the module's rules: trees, and single files (archives, strays).

    Args:
        files: All files of the location, sorted by relative path.

    Yields:
        A tree for a folder; a file alone for an archive, and for one that belongs to no repository.
    """
    if _is_bare(files, 0):
        yield Tree("", tuple(files))
        return
    direct = [file for file in files if "/" not in file.relative_path]
    deeper = [file for file in files if "/" in file.relative_path]
    folders = {top: tuple(members) for top, members in groupby(deeper, key=partial(_part, 0))}
    strays = [file for file in direct if not is_archive(file.relative_path)]
    holds_several = len(strays) < len(direct) or any(
        _is_bare(members, 1) or _is_project(members, depth=1, readme_counts=False) for members in folders.values()
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
    if direct or any(_is_bare(group, 2) or _is_project(group, depth=2, readme_counts=True) for group in inner.values()):
        yield from (Tree(f"{top}/{name}", group) for name, group in inner.items())
    elif deeper:
        yield Tree(top, tuple(deeper))


def _is_project(members: Iterable[SourceFile], *, depth: int, readme_counts: bool) -> bool:
    names = [_part(-1, file) for file in members if file.relative_path.count("/") == depth]
    return any(name in _PROJECT_FILES or is_licence_file(name) or (readme_counts and is_readme(name)) for name in names)


def _is_bare(members: Sequence[SourceFile], depth: int) -> bool:
    """Whether a folder, `depth` folders below the location, is a bare git repository."""
    folders = members[0].relative_path.split("/")[:depth] if members else []
    start = sum(len(folder) + 1 for folder in folders)
    return is_bare_repository(
        (file.relative_path[start:] for file in members), is_named_so=bool(folders) and folders[-1].endswith(".git")
    )


def _is_code(file: SourceFile) -> bool:
    path = file.relative_path
    is_prose = is_readme(path) or is_licence_file(path) or path.lower().endswith((".md", ".txt", ".rst"))
    return not is_prose and unwanted_by_name(path, file.size) is None


def _part(index: int, file: SourceFile) -> str:
    return file.relative_path.split("/")[index]
