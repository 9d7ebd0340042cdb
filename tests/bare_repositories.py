"""Bare git repositories for tests, made by dulwich."""

from __future__ import annotations

from pathlib import Path

from dulwich.objects import Blob, Commit, ObjectID, Tree
from dulwich.repo import Repo

MOMENT = 1_700_000_000  # 2023-11-14T22:13:20Z


def bare_repository(
    path: Path,
    versions: list[dict[str, bytes]],
    *,
    branch: bytes = b"refs/heads/main",
    special: dict[str, tuple[int, bytes]] | None = None,
) -> Repo:
    """A bare repository with one commit a version, every object loose.

    Args:
        path: Folder to be made.
        versions: Files by path, of each commit.
        branch: What the commits are on; HEAD always leads to `main`.
        special: Path -> (mode, content or id) of links and submodules at the top of the last version.
    """
    repository = Repo.init_bare(path, mkdir=True)
    parents: list[ObjectID] = []
    for number, files in enumerate(versions):
        is_last = number == len(versions) - 1
        commit = Commit()
        commit.tree = _tree(repository, files, special if is_last and special else {})
        commit.parents = parents
        commit.author = commit.committer = b"A <a@example.org>"
        commit.author_time = commit.commit_time = MOMENT
        commit.author_timezone = commit.commit_timezone = 0
        commit.message = b"version"
        repository.object_store.add_object(commit)
        parents = [commit.id]
    repository.refs[branch] = parents[0]
    repository.refs.set_symbolic_ref(b"HEAD", b"refs/heads/main")
    return repository


def _tree(repository: Repo, files: dict[str, bytes], special: dict[str, tuple[int, bytes]]) -> ObjectID:
    tree = Tree()
    folders: dict[str, dict[str, bytes]] = {}
    for path, data in files.items():
        top, separator, rest = path.partition("/")
        if separator:
            folders.setdefault(top, {})[rest] = data
        else:
            tree.add(top.encode(), 0o100644, _blob(repository, data))
    for name, inside in folders.items():
        tree.add(name.encode(), 0o040000, _tree(repository, inside, {}))
    for name, (mode, content) in special.items():
        tree.add(name.encode(), mode, content if mode == 0o160000 else _blob(repository, content))
    repository.object_store.add_object(tree)
    return tree.id


def _blob(repository: Repo, data: bytes) -> ObjectID:
    blob = Blob.from_string(data)
    repository.object_store.add_object(blob)
    return blob.id
