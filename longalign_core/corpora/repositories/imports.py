"""Which files of a repository one of its files imports, for the languages that have a resolver here.

Resolvers follow what the languages say about paths, not what a build makes of them: a missed import
costs a worse order of files, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

from longalign_core.corpora.repositories.imports_compiled import c_imports, go_imports, java_imports, rust_imports
from longalign_core.corpora.repositories.imports_scripts import javascript_imports, python_imports
from longalign_core.corpora.repositories.source_index import SourceIndex

__all__ = ["SourceIndex", "imports_of"]

_Resolver = Callable[[str, str, SourceIndex], Iterator[str]]
_RESOLVERS: Mapping[str, _Resolver] = {
    **dict.fromkeys((".py", ".pyi"), python_imports),
    **dict.fromkeys(
        (".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx", ".vue", ".svelte"), javascript_imports
    ),
    **dict.fromkeys((".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".cu", ".cuh", ".m", ".mm"), c_imports),
    **dict.fromkeys((".java", ".kt", ".scala"), java_imports),
    ".go": go_imports,
    ".rs": rust_imports,
}


def imports_of(path: str, text: str, index: SourceIndex) -> set[str]:
    """Paths of the files that a file imports, itself not among them."""
    resolver = _RESOLVERS.get(PurePosixPath(path).suffix.lower())
    return set(resolver(path, text, index)) - {path} if resolver else set()
