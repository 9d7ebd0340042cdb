"""Imports of C and C++, Go, Java (and its relatives) and Rust files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from longalign_core.corpora.repositories.source_index import SourceIndex

_INCLUDE = re.compile(r"^[ \t]*#[ \t]*(?:include|import)[ \t]*([\"<])([^\">\n]+)[\">]", re.M)
_GO_IMPORT = re.compile(r"^import[ \t]+(?:[\w.]+[ \t]+)?\"([^\"\n]+)\"|^import[ \t]*\(([^)]*)\)", re.M)
_JAVA_IMPORT = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?(\w+(?:\.\w+){0,30})(\.\*)?", re.M)
_JAVA_SUFFIXES = (".java", ".kt", ".scala")
_MAX_NAMES = 30
_RUST_MODULE = re.compile(r"^[ \t]*(?:pub(?:\([^)\n]*\))?[ \t]+)?mod[ \t]+(\w+)[ \t]*;", re.M)
_RUST_USE = re.compile(r"^[ \t]*(?:pub(?:\([^)\n]*\))?[ \t]+)?use[ \t]+([^;]{1,4000});", re.M)


def c_imports(path: str, text: str, index: SourceIndex) -> Iterator[str]:
    """Headers of the repository that a C, C++ or Objective-C file includes.

    Beside the file first, then wherever a path ends so: include folders are a matter of the build.
    Of what stands in angle brackets only paths with a folder are looked for.
    """
    for quote, target in _INCLUDE.findall(text):
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if quote == '"' and beside in index.texts:
            yield beside
            continue
        wanted = index.ending(target.lstrip("./")) if quote == '"' or "/" in target else []
        if found := index.nearest(wanted, path):
            yield found


def go_imports(path: str, text: str, index: SourceIndex) -> Iterator[str]:
    """Files of the packages that a Go file imports, tests left out, by the modules of the repository."""
    targets = []
    for single, block in _GO_IMPORT.findall(text):
        targets += [single] if single else re.findall(r"\"([^\"\n]+)\"", block)
    for target in targets:
        module = max((one for one in index.go_modules if f"{target}/".startswith(f"{one}/")), key=len, default=None)
        if module is None:
            continue
        folder = posixpath.join(index.go_modules[module], target[len(module) + 1 :]).rstrip("/")
        yield from (one for one in index.in_folder(folder) if one.endswith(".go") and not one.endswith("_test.go"))


def java_imports(path: str, text: str, index: SourceIndex) -> Iterator[str]:
    """Files of the classes that a Java, Kotlin or Scala file imports, and of packages imported as a whole."""
    for name, star in _JAVA_IMPORT.findall(text):
        base = name.removesuffix("._").replace(".", "/")
        if (star or name.endswith("._")) and (folder := index.nearest(index.folders_ending(base), path)):
            yield from (one for one in index.in_folder(folder) if one.endswith(_JAVA_SUFFIXES))
            continue
        # A name may lead inside a class: a static member, a nested class.
        while "/" in base:
            found = [one for suffix in _JAVA_SUFFIXES for one in index.ending(base + suffix)]
            if nearest := index.nearest(found, path):
                yield nearest
                break
            base = posixpath.dirname(base)


def rust_imports(path: str, text: str, index: SourceIndex) -> Iterator[str]:
    """Modules that a Rust file declares or uses, of its own crate or another one of the repository."""
    folder = posixpath.dirname(path)
    is_root = posixpath.basename(path) in ("lib.rs", "main.rs", "mod.rs")
    own = folder if is_root else path.removesuffix(".rs")
    for name in _RUST_MODULE.findall(text):
        if found := _rust_module(posixpath.join(own, name), index):
            yield found
    for tree in _RUST_USE.findall(text):
        for used in _use_paths(tree):
            match used:
                case ["crate", *rest]:
                    yield from _rust_item(_crate_folder(path, index), rest, index)
                case ["self", *rest]:
                    yield from _rust_item(own, rest, index)
                case ["super", *rest]:
                    start = posixpath.dirname(own)
                    while rest and rest[0] == "super":
                        start, rest = posixpath.dirname(start), rest[1:]
                    yield from _rust_item(start, rest, index)
                case [crate, *rest] if crate in index.crates:
                    root = index.crates[crate]
                    yield from _rust_item(posixpath.dirname(root), rest, index)
                    yield root
                case names:
                    yield from _rust_item(own, names, index)


def _use_paths(tree: str) -> list[list[str]]:
    """Paths of a `use` tree: `a::{b, c::{d, e as f}}` is a::b, a::c::d and a::c::e."""
    paths: list[list[str]] = []
    opened: list[list[str]] = []
    current: list[str] = []
    for symbol in re.findall(r"\w+|::|[{},*]", re.sub(r"\bas\s+\w+", "", tree)):
        match symbol:
            case "{":
                opened.append(list(current))
            case "}" | ",":
                if current and (not opened or current != opened[-1]):
                    paths.append(current)
                if symbol == "}" and opened:
                    opened.pop()
                current = list(opened[-1]) if opened else []
            case "::" | "*":
                pass
            case _:
                current = [*current, symbol]
    if current:
        paths.append(current)
    return paths


def _rust_item(folder: str, names: list[str], index: SourceIndex) -> Iterator[str]:
    """The module of the longest beginning of a path that there is a file for; the rest are its items."""
    for end in range(min(len(names), _MAX_NAMES), 0, -1):
        if found := _rust_module(posixpath.join(folder, *names[:end]), index):
            yield found
            return


def _rust_module(base: str, index: SourceIndex) -> str | None:
    return index.first((f"{base}.rs", f"{base}/mod.rs"))


def _crate_folder(path: str, index: SourceIndex) -> str:
    folder = posixpath.dirname(path)
    while folder and not index.first((posixpath.join(folder, "lib.rs"), posixpath.join(folder, "main.rs"))):
        folder = posixpath.dirname(folder)
    return folder
