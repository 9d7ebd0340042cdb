"""Definitions of an author's own macros and environments, as read from LaTeX source.

Only simple ones are known: text with parameters. What programs TeX is left as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_PARAMETERS = 9
_PROGRAMMING = re.compile(
    r"\\(?:if(?!f\b)|el(?:se)\b|fi\b|futurelet|csname|expandafter|noexpand|[egx]?def\b|let\b|the\b|catcode|advance|count\b"
    r"|newcommand|renewcommand|providecommand|@|[A-Za-z]+@|halign|read\b|write\b|immediate|loop\b|afterassignment)"
)
_EITHER_MODE = re.compile(
    r"\\ifmmode(?![A-Za-z@])\s*((?:(?!\\if|\\fi).)*?)\\else(?![A-Za-z@])(?:(?!\\if|\\fi).)*\\fi(?![A-Za-z@])", re.S
)
_PARAMETER = re.compile(r"#([#1-9])")

KEPT_NAMES = frozenset((
    "begin", "end", "document", "documentclass", "documentstyle", "usepackage", "input", "include", "title",
    "author", "abstract", "maketitle", "part", "chapter", "section", "subsection", "subsubsection", "paragraph",
    "subparagraph", "appendix", "caption", "footnote", "footnotetext", "thanks", "label", "ref", "eqref", "autoref",
    "cref", "Cref", "pageref", "cite", "citet", "citep", "citealt", "citealp", "citeauthor", "citeyear",
    "bibliography", "bibliographystyle", "bibitem", "newblock", "item", "url", "href", "emph", "textbf", "textit",
    "texttt", "textrm", "textsf", "textsc", "textsl", "text", "verb", "verbatim", "figure", "table", "tabular",
    "equation", "align", "itemize", "enumerate", "description", "includegraphics", "newcommand", "renewcommand",
    "providecommand", "def", "let", "newenvironment", "hspace", "vspace", "par", "noindent", "multicolumn",
    "multirow", "thebibliography", "ensuremath", "left", "right", "frac", "sqrt", "hline", "footnotemark", "date",
    "today", "keywords", "and",
))  # fmt: skip
"""Names whose meaning the conversion to text knows: what a class or an author makes of their look is of no use."""


@dataclass(frozen=True, slots=True)
class Macro:
    """A macro that stands for text.

    Attributes:
        num_parameters: How many arguments it takes, the optional one among them.
        default: Of its first argument, which is then optional; None where it is not.
        body: Text with `#1` and so on.
        is_final: The body is a control sequence in the meaning it had before the author redefined it.
    """

    num_parameters: int
    default: str | None
    body: str
    is_final: bool = False

    def num_characters(self, arguments: Sequence[str]) -> int:
        """How long the body with its arguments is at most."""
        return len(self.body) + sum(
            len(argument) * self.body.count(f"#{number}") for number, argument in enumerate(arguments, start=1)
        )

    def filled(self, arguments: Sequence[str]) -> str:
        """The body with its arguments."""

        def argument(match: re.Match[str]) -> str:
            if match[1] == "#":
                return "#"
            number = int(match[1])
            return arguments[number - 1] if number <= len(arguments) else ""

        return _PARAMETER.sub(argument, self.body)


@dataclass(frozen=True, slots=True)
class Environment:
    """An author's environment: what its begin and its end stand for."""

    begin: Macro
    end: Macro


def simple_macro(num_parameters: int, default: str | None, body: str) -> Macro | None:
    """A macro; None where its body is a program rather than text."""
    body = _EITHER_MODE.sub(r"\\ensuremath{\1}", body)
    if num_parameters > MAX_PARAMETERS or _PROGRAMMING.search(body):
        return None
    return Macro(num_parameters, default, body)


def theorem(title: str) -> Environment:
    r"""What `\newtheorem` makes: a paragraph under a heading."""
    return Environment(Macro(1, "", rf"\par\theoremheading{{{title}}}{{#1}}"), Macro(0, None, r"\par "))
