"""What an author defines in the course of a paper: macros, environments, theorems."""

from __future__ import annotations

import re
from collections.abc import Callable

from longalign_core.corpora.latex.macros import KEPT_NAMES, Environment, Macro, simple_macro, theorem
from longalign_core.corpora.latex.source import LatexSource

_PARAMETER_TEXT = re.compile(r"((?:[ \t]*#[1-9])*)\s*(?=\{)")
_OTHER_PARAMETER_TEXT = re.compile(r"[^{}\\%]*(?=\{)")
_LET = re.compile(r"\s*=?[ \t]?")


class Definitions:
    """Reads definitions and keeps the latest of each name, whatever group it stands in.

    Attributes:
        macros: By name; None for one that programs TeX and so is left as it is written.
        environments: By name.
    """

    def __init__(self) -> None:
        self.macros: dict[str, Macro | None] = {}
        self.environments: dict[str, Environment] = {}
        self._reserved: set[str] = {*KEPT_NAMES, *DEFINING}

    def reserve(self, name: str) -> None:
        """Keep a name from being defined."""
        self._reserved.add(name)

    def read(self, name: str, source: LatexSource) -> None:
        """Read the definition that follows a control sequence which makes one."""
        DEFINING[name](self, name, source)

    def _macro(self, name: str, source: LatexSource) -> None:
        r"""`\newcommand{\name}[2][default]{body}` and its like."""
        source.star()
        defined = source.argument().strip().lstrip("\\")
        count, default = source.optional(), source.optional()
        body = source.argument()
        if name == "providecommand" and defined in self.macros:
            return
        if name == "DeclareMathOperator":
            body = rf"\operatorname{{{body}}}"
        self._keep(defined, simple_macro(_number(count), default, body))

    def _macro_of_tex(self, name: str, source: LatexSource) -> None:
        r"""`\def\name#1#2{body}`; what has other signs between its parameters is a program."""
        source.skip_blanks()
        defined = source.control()
        if defined is None:
            return
        parameters = source.match(_PARAMETER_TEXT)
        if parameters is None:
            source.match(_OTHER_PARAMETER_TEXT)
        body = source.group()
        if parameters is None or body is None:
            self._keep(defined, None)
        else:
            self._keep(defined, simple_macro(parameters[1].count("#"), None, body))

    def _other_name(self, name: str, source: LatexSource) -> None:
        source.skip_blanks()
        defined = source.control()
        source.match(_LET)
        meant = source.argument()
        if defined is None:
            return
        if meant.startswith("\\"):
            original = Macro(0, None, meant[1:], is_final=True)
            self._keep(defined, self.macros.get(meant[1:], original))
        else:
            self._keep(defined, Macro(0, None, meant))

    def _environment(self, name: str, source: LatexSource) -> None:
        source.star()
        defined = source.argument().strip()
        count, default = source.optional(), source.optional()
        begin = simple_macro(_number(count), default, source.argument())
        end = simple_macro(0, None, source.argument())
        if begin and end and defined not in self._reserved:
            self.environments[defined] = Environment(begin, end)

    def _theorem(self, name: str, source: LatexSource) -> None:
        source.star()
        defined = source.argument().strip()
        source.optional()
        title = source.argument()
        source.optional()
        self.environments[defined] = theorem(title)

    def _keep(self, name: str, macro: Macro | None) -> None:
        if name and name not in self._reserved:
            self.macros[name] = macro


def _number(count: str | None) -> int:
    count = (count or "0").strip()
    return int(count) if count.isdecimal() and len(count) == 1 else 0


DEFINING: dict[str, Callable[[Definitions, str, LatexSource], None]] = {
    **dict.fromkeys(("newcommand", "renewcommand", "providecommand", "DeclareRobustCommand"), Definitions._macro),
    "DeclareMathOperator": Definitions._macro,
    **dict.fromkeys(("def", "gdef", "edef", "xdef"), Definitions._macro_of_tex),
    "let": Definitions._other_name,
    **dict.fromkeys(("newenvironment", "renewenvironment"), Definitions._environment),
    "newtheorem": Definitions._theorem,
}
"""Control sequences that make definitions."""
