"""The paths of a repository, looked up as imports name them."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property

import orjson


class SourceIndex:
    """Finds files of a repository.

    Attributes:
        texts: Text of each file by path.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_tail: dict[str, list[str]] = defaultdict(list)
        self._by_folder: dict[str, list[str]] = defaultdict(list)
        for path in sorted(texts):
            folder, _, name = path.rpartition("/")
            self._by_name[name].append(path)
            self._by_tail[_tail(path)].append(path)
            self._by_folder[folder].append(path)

    def first(self, candidates: Iterable[str]) -> str | None:
        """The first of some paths that there is."""
        return next((path for path in candidates if path in self.texts), None)

    def named(self, name: str) -> list[str]:
        """Files of a name, by path."""
        return self._by_name.get(name, [])

    def in_folder(self, folder: str) -> list[str]:
        """Files that a folder directly holds, by path."""
        return self._by_folder.get(folder, [])

    def ending(self, path: str) -> list[str]:
        """Files whose path ends in a path, by whole folder names."""
        # A thousand packages have an __init__.py: two names tell them apart where there are two.
        candidates = self._by_tail.get(_tail(path), []) if "/" in path else self.named(path)
        return [one for one in candidates if one == path or one.endswith(f"/{path}")]

    def folders_ending(self, path: str) -> list[str]:
        """Folders that directly hold files and whose path ends in a path."""
        return [one for one in self._folder_list.get(path.rpartition("/")[2], []) if f"/{one}".endswith(f"/{path}")]

    def nearest(self, candidates: Iterable[str], path: str) -> str | None:
        """Of some paths, the one that shares most folders with a file; the shortest, first of these."""
        return min(candidates, key=lambda one: (-_num_shared(one, path), one.count("/"), one), default=None)

    @cached_property
    def go_modules(self) -> dict[str, str]:
        """Go module path -> folder of its go.mod."""
        found: dict[str, str] = {}
        for path in self.named("go.mod"):
            for line in self.texts[path].splitlines():
                if line.startswith("module "):
                    found[line.split()[1].strip('"')] = posixpath.dirname(path)
                    break
        return found

    @cached_property
    def node_packages(self) -> dict[str, str]:
        """Name in a package.json -> its folder."""
        found: dict[str, str] = {}
        for path in self.named("package.json"):
            try:
                about = orjson.loads(self.texts[path])
            except orjson.JSONDecodeError:
                continue
            if isinstance(about, dict) and isinstance(about.get("name"), str):
                found.setdefault(about["name"], posixpath.dirname(path))
        return found

    @cached_property
    def crates(self) -> dict[str, str]:
        """Rust crate name, as code writes it -> root file of the crate, by its Cargo.toml."""
        import tomllib

        found: dict[str, str] = {}
        for path in self.named("Cargo.toml"):
            try:
                about = tomllib.loads(self.texts[path])
            except (tomllib.TOMLDecodeError, RecursionError):
                continue
            package = about.get("package")
            root = posixpath.join(posixpath.dirname(path), "src/lib.rs")
            if isinstance(package, dict) and isinstance(package.get("name"), str) and root in self.texts:
                found.setdefault(package["name"].replace("-", "_"), root)
        return found

    @cached_property
    def _folder_list(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for folder in self._by_folder:
            found[folder.rpartition("/")[2]].append(folder)
        return found


def _tail(path: str) -> str:
    return "/".join(path.split("/")[-2:])


def _num_shared(one: str, other: str) -> int:
    shared = 0
    for first, second in zip(one.split("/")[:-1], other.split("/")[:-1], strict=False):
        if first != second:
            break
        shared += 1
    return shared
