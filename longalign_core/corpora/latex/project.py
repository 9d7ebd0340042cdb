r"""The source files of one paper: which is the root, and what `\input` finds."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from longalign_core.corpora.cleaning import decode_text

TEX_SUFFIXES = (".tex", ".ltx", ".latex")
SOURCE_SUFFIXES = (*TEX_SUFFIXES, ".bbl", ".sty", ".def", ".txt", ".inc", ".tikz")
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%[^\n]*")
_CLASS = re.compile(r"\\documentclass\s*(?:\[[^\]]{0,2000}\]\s*)?\{([^}]{0,200})\}|\\documentstyle\b")
_PREAMBLE = re.compile(r"^\s*\\document(?:class|style)\b", re.M)
_PART_CLASSES = ("subfiles", "standalone", "letter")
_PLAIN_TEX = re.compile(r"\\(?:bye|magnification|end)\b(?!\s*\{)")
_INCLUDED = re.compile(r"\\(?:input|include|subfile)\s*\{?\s*([^\s{}\\%]+)")
_USUAL_NAMES = ("ms", "main", "paper", "article", "manuscript", "root", "arxiv")
_DIRECTIVES = "00readme.xxx"


@dataclass(frozen=True, slots=True)
class Project:
    """Files of a paper.

    Attributes:
        files: Content by path; paths never lead out of the project.
    """

    files: Mapping[str, bytes]
    _texts: dict[str, str | None] = field(default_factory=dict)

    def text(self, path: str) -> str | None:
        r"""A file as text, with `\n` as line ends; None where it is none."""
        if path not in self._texts:
            text = decode_text(self.files[path])
            self._texts[path] = text and text.replace("\r\n", "\n").replace("\r", "\n")
        return self._texts[path]

    def body(self, path: str) -> str | None:
        """A file as one that takes it in sees it: without a preamble of its own."""
        text = self.text(path)
        if text is None or not _PREAMBLE.search(text):
            return text
        _, _, body = text.partition(r"\begin{document}")
        return body.partition(r"\end{document}")[0] if body else text

    def find(self, name: str, *, beside: str = "", suffixes: tuple[str, ...] = ("", ".tex")) -> str | None:
        """Path of a file that another one names; None where the project has none such.

        Args:
            name: As written, with or without a suffix.
            beside: Path of the file that names it, and whose folder is tried first.
            suffixes: To be tried after the name.
        """
        name = name.strip().strip('"')
        for folder in dict.fromkeys((posixpath.dirname(beside), "")):
            for suffix in suffixes:
                path = posixpath.normpath(posixpath.join(folder, name + suffix))
                if path in self.files:
                    return path
        return None

    def root(self) -> str | None:
        """Path of the file that the paper is made from; None where there is none.

        Files with a document class are asked first, plain TeX last. Of several, what the submitter
        names, what no other file takes in, what has a bibliography of its name, what lies in no
        folder, what is called as usual, and what is longest.
        """
        sources = {path: self._uncommented(path) for path in self.files if path.lower().endswith(TEX_SUFFIXES)}
        ignored, named = self._directives("ignore"), self._directives("toplevelfile")
        sources = {path: text for path, text in sources.items() if path not in ignored}
        with_class = {path: text for path, text in sources.items() if _has_class(text)}
        with_body = {path: text for path, text in sources.items() if "\\begin{document}" in text}
        plain = {path: text for path, text in sources.items() if _PLAIN_TEX.search(text)}
        candidates = with_class or with_body or plain
        included = {
            self.find(name, beside=path)
            for path, text in sources.items()
            for name in _INCLUDED.findall(text)
            if path not in candidates or "\\begin{document}" in text
        }

        def rank(path: str) -> tuple[bool, bool, bool, bool, int, bool, int, str]:
            pure = PurePosixPath(path)
            return (
                path not in named,
                "\\begin{document}" not in candidates[path],
                path in included,
                str(pure.with_suffix(".bbl")) not in self.files,
                len(pure.parts),
                pure.stem.lower() not in _USUAL_NAMES,
                -len(candidates[path]),
                path,
            )

        return min(candidates, key=rank, default=None)

    def bibliography(self, root: str) -> str | None:
        """Path of the list of references that was made for a root file; None where there is none."""
        own = str(PurePosixPath(root).with_suffix(".bbl"))
        lists = sorted(path for path in self.files if path.lower().endswith(".bbl"))
        return own if own in lists else lists[0] if len(lists) == 1 else None

    def _directives(self, wanted: str) -> set[str]:
        """Files to which the submitter gave a directive: `name directive`, a line each."""
        text = next((self.text(path) for path in self.files if path.lower() == _DIRECTIVES), None)
        lines = [line.split() for line in (text or "").splitlines()]
        return {line[0] for line in lines if len(line) == 2 and line[1] == wanted}

    def _uncommented(self, path: str) -> str:
        text = self.text(path) or ""
        return "" if text[:200].lstrip().startswith("%auto-ignore") else _COMMENT.sub(r"\1", text)


def _has_class(text: str) -> bool:
    found = _CLASS.search(text)
    return found is not None and (found[1] or "").strip() not in _PART_CLASSES
