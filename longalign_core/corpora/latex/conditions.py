r"""Conditions whose outcome the source itself tells: `\iffalse`, and an author's own `\newif`."""

from __future__ import annotations

import re

from longalign_core.corpora.latex.source import LatexSource

_OF_TEX = frozenset(
    ("if", "ifcase", "ifcat", "ifx", "ifnum", "ifdim", "ifodd", "ifvmode", "ifhmode", "ifmmode", "ifinner", "ifvoid",
     "ifhbox", "ifvbox", "ifeof", "ifdefined", "ifcsname", "ifpdf", "ifxetex", "ifluatex")
)  # fmt: skip
_MARK = re.compile(r"\\(if(?!f\b|thenelse\b)[A-Za-z@]*|else|fi)(?![A-Za-z@])|\\.|%[^\n]*", re.S)


class Conditions:
    """Follows the branches that hold. Conditions that only TeX could tell stay, with both branches."""

    def __init__(self) -> None:
        self._switches = {"true": True, "false": False}
        self._is_known: list[bool] = []

    def read(self, name: str, source: LatexSource) -> bool:
        """Read what belongs to a control sequence of a condition; False where it is to stay as it is written."""
        if name == "newif":
            source.skip_blanks()
            switch = source.control()
            if switch:
                self._switches.setdefault(switch.removeprefix("if"), False)
            return True
        if name in ("else", "fi"):
            return self._branch_ends(name, source)
        if name.startswith("if") and name[2:] in self._switches:
            if self._switches[name[2:]] or _skip_branch(source) == "else":
                self._is_known.append(True)
            return True
        if name in _OF_TEX:
            self._is_known.append(False)
            return False
        for outcome in ("true", "false"):
            switch = name.removesuffix(outcome)
            if switch != name and switch in self._switches:
                self._switches[switch] = outcome == "true"
                return True
        return False

    def _branch_ends(self, name: str, source: LatexSource) -> bool:
        is_known = bool(self._is_known) and self._is_known[-1]
        if self._is_known and (is_known or name == "fi"):
            self._is_known.pop()
        if is_known and name == "else":
            _skip_branch(source)
        return is_known


def _skip_branch(source: LatexSource) -> str:
    r"""Pass over what is not read, up to the `\else` or `\fi` that ends it; returns which."""
    frame = source.top()
    if frame is None:
        return ""
    depth = 0
    for found in _MARK.finditer(frame.text, frame.at):
        word = found[1] or ""
        if depth == 0 and word in ("else", "fi"):
            source.spend(found.end() - frame.at)
            frame.at = found.end()
            return word
        depth += word.startswith("if")
        depth -= word == "fi"
    source.spend(len(frame.text) - frame.at)
    return ""  # never ended: then it hides nothing
