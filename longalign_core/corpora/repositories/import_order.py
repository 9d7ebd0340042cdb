"""Files of a repository in the order of their imports: what is imported before what imports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from longalign_core.corpora.repositories.imports import SourceIndex, imports_of


def order_by_imports(texts: Mapping[str, str]) -> list[str]:
    """Paths in an order in which every file stands behind those that it imports.

    Files that import nothing of the repository, and choices that imports leave open, go by path. An
    import that closes a circle is passed over, so that within a circle the file that is reached
    first stands last. Imports that cannot be followed, of other packages or in a language that is
    not known, count for nothing.

    Args:
        texts: Text of each file by path.
    """
    index = SourceIndex(texts)
    ordered: list[str] = []
    seen: set[str] = set()
    for start in sorted(texts):
        if start in seen:
            continue
        seen.add(start)
        # Depth first without recursion: chains of imports may be longer than Python's stack.
        waiting: list[tuple[str, Iterator[str]]] = [(start, iter(sorted(imports_of(start, texts[start], index))))]
        while waiting:
            path, imported = waiting[-1]
            following = next((one for one in imported if one not in seen), None)
            if following is None:
                ordered.append(path)
                waiting.pop()
            else:
                seen.add(following)
                waiting.append((following, iter(sorted(imports_of(following, texts[following], index)))))
    return ordered
