"""One repository's files put together: into one text, or into one a sub-package.

Sub-packages are found by size alone, which works for source packages, workspace members and plain
folders alike: a folder stays whole where it has room, else its sub-folders are looked at, and small
neighbours under one licence are put together. Each kept file is in exactly one text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from longalign_core.corpora.cleaning import MAX_TEXT_BYTES
from longalign_core.corpora.repositories.import_order import order_by_imports
from longalign_core.corpora.repositories.source_text import SourceText, is_readme

CONTEXT_CHARACTERS = 2_000
"""Most of the repository's README that is put before a sub-package."""
_SEPARATOR = "\n\n"


@dataclass(frozen=True, slots=True)
class Part:
    """A document of a repository.

    Attributes:
        path: First folder or file in it, which no other part has; empty for the whole.
        extent: The same, and the last one where there are several.
        text: Its files, each under a line that names it.
        licence: What it states.
    """

    path: str
    extent: str
    text: str
    licence: str | None


@dataclass(frozen=True, slots=True)
class _Item:
    path: str
    members: tuple[str, ...]
    size: int

    @property
    def is_file(self) -> bool:
        return self.members == (self.path,)

    @property
    def folder(self) -> str:
        """Itself, or what a file lies in."""
        return self.path.rpartition("/")[0] if self.is_file else self.path


def repository_parts(
    source: SourceText, order: Literal["path", "dependency"], max_characters: int | None
) -> Iterator[Part]:
    """The documents of a repository, in the order of their paths.

    Args:
        source: Its files.
        order: Of the files in a document, after the READMEs of its top.
        max_characters: Larger repositories become several documents. None: never. A file that is
            larger alone is a document alone.
    """
    texts = source.texts
    paths = sorted(texts)
    ordered = order_by_imports(texts) if order == "dependency" else paths
    rank = {path: number for number, path in enumerate(ordered)}
    sizes = {path: len(_section(path, text)) + len(_SEPARATOR) for path, text in texts.items()}
    limit = min(max_characters or MAX_TEXT_BYTES, MAX_TEXT_BYTES)
    if max_characters is None or sum(sizes.values()) <= limit:
        yield Part("", "", _joined(texts, paths, rank, top=""), source.licence())
        return
    introduction = _introduction(texts, min(CONTEXT_CHARACTERS, limit // 10))
    for items in _split(paths, sizes, limit - len(introduction), source):
        members = [path for item in items for path in item.members]
        first = items[0]
        folder = first.folder if len(items) == 1 else first.path.rpartition("/")[0]
        text = _joined(texts, members, rank, top=folder)
        is_introduced = any("/" not in path and is_readme(path) for path in members)
        extent = first.path if len(items) == 1 else f"{first.path} … {items[-1].path}"
        yield Part(first.path, extent, text if is_introduced else introduction + text, source.licence(first.folder))


def _split(paths: Sequence[str], sizes: Mapping[str, int], room: int, source: SourceText) -> Iterator[list[_Item]]:
    """Put paths into groups of whole files and folders of one folder and licence that have room together."""
    waiting: list[tuple[int, Sequence[str]]] = [(0, paths)]
    while waiting:
        depth, inside = waiting.pop()
        deeper: list[tuple[int, Sequence[str]]] = []
        group: list[_Item] = []
        for item in _items(inside, depth, sizes):
            if item.size > room and not item.is_file:
                deeper.append((depth + 1, item.members))
                continue
            if group and (
                sum(one.size for one in group) + item.size > room
                or source.licence(item.folder) != source.licence(group[0].folder)
            ):
                yield group
                group = []
            group.append(item)
        if group:
            yield group
        waiting += reversed(deeper)


def _items(paths: Sequence[str], depth: int, sizes: Mapping[str, int]) -> list[_Item]:
    """What a folder directly holds: READMEs, other files, folders."""
    items = []
    for name, group in groupby(paths, key=lambda path: "/".join(path.split("/")[: depth + 1])):
        members = tuple(group)
        items.append(_Item(name, members, sum(sizes[path] for path in members)))
    return sorted(items, key=lambda item: (not item.is_file, not (item.is_file and is_readme(item.path)), item.path))


def _joined(texts: Mapping[str, str], members: Sequence[str], rank: Mapping[str, int], top: str) -> str:
    def place(path: str) -> tuple[bool, str | int]:
        is_first = is_readme(path) and path.rpartition("/")[0] == top
        return (False, path) if is_first else (True, rank[path])

    return _SEPARATOR.join(_section(path, texts[path]) for path in sorted(members, key=place))


def _section(path: str, text: str) -> str:
    return f"===== {path} =====\n\n{text}"


def _introduction(texts: Mapping[str, str], max_characters: int) -> str:
    """The beginning of the README at the top, by whole paragraphs or lines where that leaves anything."""
    path = min((path for path in texts if "/" not in path and is_readme(path)), default=None)
    if path is None:
        return ""
    head = f"===== {path} (beginning) =====\n\n"
    room = max_characters - len(head) - len(_SEPARATOR)
    text = texts[path].strip()
    if len(text) > room:
        text = text[: max(room, 0)]
        text = next((text[:end] for end in (text.rfind("\n\n"), text.rfind("\n")) if end > 0), text)
    return head + text + _SEPARATOR if text else ""
