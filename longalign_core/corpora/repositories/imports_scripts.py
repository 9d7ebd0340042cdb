"""Imports of Python, JavaScript and TypeScript files."""

from __future__ import annotations

import ast
import posixpath
import re
import warnings
from collections.abc import Iterator

from longalign_core.corpora.repositories.source_index import SourceIndex

# For what does not parse today: Python 2, templates.
_PYTHON_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+([^\n#]+)|import[ \t]+([\w., \t]+))", re.M)
# What stands before `from` does not matter: only paths of the repository are taken.
_JAVASCRIPT_IMPORT = re.compile(
    r"\b(?:from|import)\s*[\"']([^\"'\n]+)[\"']"
    r"|\b(?:require|import)\s*\(\s*[\"']([^\"'\n]+)[\"']"
)
_BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")
_SCRIPT_SUFFIXES = (".ts", ".tsx", ".mts", ".js", ".jsx", ".mjs", ".cjs", ".d.ts", ".vue", ".svelte", ".json")
_COMPILED_TO = {".js": (".ts", ".tsx"), ".jsx": (".tsx",), ".mjs": (".mts",), ".cjs": (".cts",)}


def python_imports(path: str, text: str, index: SourceIndex) -> Iterator[str]:
    """Modules of the repository that a Python file imports, wherever in the file."""
    for level, module, names in _python_statements(text):
        if level:
            folder = path.rpartition("/")[0]
            for _ in range(level - 1):
                folder = posixpath.dirname(folder)
            base = posixpath.join(folder, *module.split(".")) if module else folder
            candidates = [found for name in names if (found := _python_module(posixpath.join(base, name), index))]
            if len(candidates) < max(len(names), 1) and (package := _python_module(base, index)):
                candidates.append(package)
            yield from candidates
            continue
        for name in names or ("",):
            found = _absolute_python(f"{module}.{name}", path, index) if name else None
            if found := found or _absolute_python(module, path, index):
                yield found


def javascript_imports(path: str, text: str, index: SourceIndex) -> Iterator[str]:
    """Files that a JavaScript or TypeScript file imports or requires, by path or by a workspace package's name."""
    for match in _JAVASCRIPT_IMPORT.finditer(text):
        target = match.group(1) or match.group(2)
        if target.startswith("."):
            found = _script(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)), index)
        else:
            found = _workspace_script(target, index)
        if found:
            yield found


def _python_statements(text: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Imports as (dots, module, names); no names for `import module`."""
    if "import" not in text:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its string escapes
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from _python_statements_by_line(text)
        return
    waiting: list[ast.AST] = [tree]
    while waiting:  # statements alone: nine nodes in ten are expressions
        node = waiting.pop()
        waiting += [inner for block in _BLOCKS for inner in getattr(node, block, ())]
        if isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names if alias.name != "*")
            yield node.level, node.module or "", names
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name, ()) for alias in node.names)


def _python_statements_by_line(text: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    for source, names, modules in _PYTHON_IMPORT.findall(text):
        if source:
            module = source.lstrip(".")
            yield len(source) - len(module), module, tuple(re.findall(r"(\w+)(?:\s+as\s+\w+)?", names))
        else:
            yield from ((0, one.split()[0], ()) for one in modules.split(",") if one.strip())


def _python_module(base: str, index: SourceIndex) -> str | None:
    return index.first((f"{base}.py", f"{base}/__init__.py", f"{base}.pyi", f"{base}/__init__.pyi"))


def _absolute_python(module: str, path: str, index: SourceIndex) -> str | None:
    """The file of a module below whichever folder imports start at: one that is no package itself."""
    base = module.replace(".", "/")
    for ending in (f"{base}.py", f"{base}/__init__.py", f"{base}.pyi"):
        roots = [one for one in index.ending(ending) if f"{one[: -len(ending)]}__init__.py" not in index.texts]
        if found := index.nearest(roots, path):
            return found
    return None


def _script(base: str, index: SourceIndex) -> str | None:
    stem, suffix = posixpath.splitext(base)
    return index.first(
        (
            base,
            *(stem + one for one in _COMPILED_TO.get(suffix, ())),
            *(base + one for one in _SCRIPT_SUFFIXES),
            *(f"{base}/index{one}" for one in _SCRIPT_SUFFIXES),
        )
    )


def _workspace_script(target: str, index: SourceIndex) -> str | None:
    num_parts = 2 if target.startswith("@") else 1
    parts = target.split("/")
    folder = index.node_packages.get("/".join(parts[:num_parts]))
    if folder is None:
        return None
    inside = "/".join(parts[num_parts:])
    starts = (posixpath.join(folder, "src", inside), posixpath.join(folder, inside))
    return next((found for start in starts if (found := _script(start.rstrip("/"), index))), None)
