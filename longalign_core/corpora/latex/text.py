"""LaTeX source, with its macros written out, to readable text; mathematics stays LaTeX."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pylatexenc.latex2text import (
    EnvironmentTextSpec,
    LatexNodes2Text,
    MacroTextSpec,
    SpecialsTextSpec,
    fmt_equation_environment,
    get_default_latex_context_db,
)
from pylatexenc.latexwalker import (
    LatexEnvironmentNode,
    LatexMacroNode,
    LatexNode,
    LatexWalker,
    LatexWalkerError,
)
from pylatexenc.latexwalker import (
    get_default_latex_context_db as get_default_walker_context_db,
)
from pylatexenc.macrospec import EnvironmentSpec, LatexContextDb, MacroSpec, MacroStandardArgsParser

from longalign_core.corpora.latex.tables import ARGUMENTS, DROPPED, DROPPED_ENVIRONMENTS, ENVIRONMENTS, MATH, REPLACED

# It tells of every odd brace, with the text around it.
logging.getLogger("pylatexenc").setLevel(logging.ERROR)

_SPACES = re.compile(r"(?<=\S)[ \t]{2,}")
_BLANK_LINES = re.compile(r"[ \t]*\n(?:[ \t]*\n)+[ \t]*")
_TITLE_BREAK = re.compile(r"\s+")
_BEFORE_COMMA = re.compile(r"\s+,")
_NODES = 200
_FRONT = ("title", "author", "abstract")


class UnreadableLatexError(Exception):
    """The source nests deeper than is read, or is no LaTeX at all."""


@dataclass(frozen=True, slots=True)
class LatexText:
    r"""What is readable of a paper.

    Attributes:
        title: From `\title`; None where it gives none.
        text: Title, abstract and body.
    """

    title: str | None
    text: str


def latex_text(latex: str, *, bibliography: bool) -> LatexText:
    """Text of a whole paper, paragraphs apart by an empty line.

    Of what comes before the body, title, authors and abstract are kept.

    Args:
        latex: Source without comments, inputs and the author's macros.
        bibliography: Whether to keep the list of references.

    Raises:
        UnreadableLatexError: The source cannot be parsed.
    """
    preamble, begin, body = latex.partition(r"\begin{document}")
    if not begin:
        preamble, body = "", latex
    converter = _Converter(_text_context(bibliography))
    try:
        front = converter.nodelist_to_text(_front_matter(_nodes(preamble))) if preamble else ""
        text = converter.nodelist_to_text(_nodes(body.partition(r"\end{document}")[0]))
    except (RecursionError, LatexWalkerError) as error:
        raise UnreadableLatexError(type(error).__name__) from None
    title = _TITLE_BREAK.sub(" ", converter.title).strip() or None
    text = _BLANK_LINES.sub("\n\n", f"{front}\n\n{text}".strip())
    return LatexText(title, _SPACES.sub(" ", text))


class _Converter(LatexNodes2Text):  # type: ignore[misc]
    """Remembers the title it came by."""

    def __init__(self, context: LatexContextDb) -> None:
        super().__init__(context, math_mode="verbatim", strict_latex_spaces=True)
        self.title = ""

    def nodelist_to_text(self, nodelist: Sequence[LatexNode]) -> str:
        # For each node, pylatexenc searches all it has written so far for a line end.
        parts = [nodelist[start : start + _NODES] for start in range(0, len(nodelist), _NODES)]
        return "".join(str(super(_Converter, self).nodelist_to_text(part)) for part in parts)

    def apply_simplify_repl(self, node: LatexNode, simplify_repl: object, what: str) -> str:
        try:
            return str(super().apply_simplify_repl(node, simplify_repl, what))
        except (KeyError, IndexError, TypeError, AttributeError):
            return ""  # a command without its arguments: the text ends in it, or a brace is missing

    def math_node_to_text(self, node: LatexNode) -> str:
        return str(super().math_node_to_text(node)).replace(r"\ensuremath", "")


def _nodes(latex: str) -> list[LatexNode]:
    nodes: list[LatexNode] = LatexWalker(latex, latex_context=_walker_context()).get_latex_nodes()[0]
    return nodes


def _front_matter(nodes: Sequence[LatexNode]) -> list[LatexNode]:
    """What a preamble says that is read: all authors, and the last title, as TeX does."""
    found: dict[str, list[LatexNode]] = {name: [] for name in _FRONT}
    for node in nodes:
        name = (
            node.macroname
            if isinstance(node, LatexMacroNode)
            else node.environmentname
            if isinstance(node, LatexEnvironmentNode)
            else None
        )
        if name == "author":
            found[name].append(node)
        elif name in _FRONT:
            found[name] = [node]
    return [node for name in _FRONT for node in found[name]]


@cache
def _walker_context() -> LatexContextDb:
    context = get_default_walker_context_db()
    context.add_context_category(
        "papers",
        macros=[MacroSpec(name, MacroStandardArgsParser(spec)) for name, spec in (ARGUMENTS | DROPPED).items()],
        environments=[
            *(EnvironmentSpec(name, MacroStandardArgsParser(spec)) for name, spec in ENVIRONMENTS.items()),
            *(EnvironmentSpec(name, MacroStandardArgsParser(spec), is_math_mode=True) for name, spec in MATH.items()),
        ],
        prepend=True,
    )
    return context


@cache
def _text_context(bibliography: bool) -> LatexContextDb:
    context = get_default_latex_context_db()
    unshown = DROPPED_ENVIRONMENTS if bibliography else (*DROPPED_ENVIRONMENTS, "thebibliography")
    context.add_context_category(
        "papers",
        macros=[
            *(MacroTextSpec(name, discard=True) for name in DROPPED),
            *(MacroTextSpec(name, simplify_repl=text) for name, text in REPLACED.items()),
            *(
                MacroTextSpec(name, simplify_repl=_reference)
                for name in ("ref", "autoref", "cref", "Cref", "vref", "nameref")
            ),
            *(MacroTextSpec(name, simplify_repl=_citation) for name in ARGUMENTS if "cite" in name.lower()),
            *(
                MacroTextSpec(name, simplify_repl=_heading)
                for name in ("part", "chapter", "section", "subsection", "subsubsection")
            ),
            MacroTextSpec("title", simplify_repl=_title),
            MacroTextSpec("author", simplify_repl=_author),
            MacroTextSpec("item", simplify_repl=_item),
            MacroTextSpec("bibitem", simplify_repl=_reference_item),
            MacroTextSpec("ensuremath", simplify_repl=_in_math),
            MacroTextSpec("verb", simplify_repl=_verbatim_words),
            MacroTextSpec("theoremheading", simplify_repl=_theorem_heading),
        ],
        environments=[
            *(EnvironmentTextSpec(name, simplify_repl=fmt_equation_environment) for name in MATH),
            *(EnvironmentTextSpec(name, discard=True) for name in unshown),
            EnvironmentTextSpec("abstract", simplify_repl="\n\nAbstract\n\n%(body)s\n\n"),
            EnvironmentTextSpec("verbatim", simplify_repl=_verbatim),
            *(
                EnvironmentTextSpec(name, simplify_repl="\n\n%(body)s\n\n")
                for name in ENVIRONMENTS
                if name not in unshown
            ),
        ],
        specials=[SpecialsTextSpec("&", " | "), SpecialsTextSpec("~", " ")],
        prepend=True,
    )
    return context


def _argument(node: LatexMacroNode, converter: _Converter, number: int) -> str:
    """Text of an argument, counted from the end; empty where it is left out."""
    arguments = node.nodeargd.argnlist if node.nodeargd else None
    if not arguments or arguments[-number] is None:
        return ""
    return str(converter.node_arg_to_text(node, len(arguments) - number)).strip()


def _is_given(node: LatexMacroNode, number: int) -> bool:
    arguments = node.nodeargd.argnlist if node.nodeargd else None
    return arguments is not None and arguments[-number] is not None


def _title(node: LatexMacroNode, l2tobj: _Converter) -> str:
    title = _argument(node, l2tobj, 1)
    l2tobj.title = l2tobj.title or title
    return f"\n\n{title}\n\n"


def _author(node: LatexMacroNode, l2tobj: _Converter) -> str:
    return f"\n\n{_BEFORE_COMMA.sub(',', _argument(node, l2tobj, 1))}\n\n"


def _heading(node: LatexMacroNode, l2tobj: _Converter) -> str:
    return f"\n\n{_TITLE_BREAK.sub(' ', _argument(node, l2tobj, 1))}\n\n"


def _theorem_heading(node: LatexMacroNode, l2tobj: _Converter) -> str:
    title, note = _argument(node, l2tobj, 2), _argument(node, l2tobj, 1)
    return f"\n\n{title} ({note}). " if note else f"\n\n{title}. "


def _reference(node: LatexMacroNode, l2tobj: _Converter) -> str:
    return _label(node)


def _label(node: LatexMacroNode) -> str:
    """The last argument as it is written: labels are no text."""
    arguments = node.nodeargd.argnlist if node.nodeargd else None
    label = str(arguments[-1].latex_verbatim()) if arguments and arguments[-1] is not None else ""
    return _TITLE_BREAK.sub(" ", label.strip("{}")).strip()


def _citation(node: LatexMacroNode, l2tobj: _Converter) -> str:
    before, after = _argument(node, l2tobj, 3), _argument(node, l2tobj, 2)
    if not _is_given(node, 2):
        before, after = "", before
    cited = f"{before} {_label(node)}".strip()
    return f"[{cited}, {after}]" if after else f"[{cited}]"


def _item(node: LatexMacroNode, l2tobj: _Converter) -> str:
    label = _argument(node, l2tobj, 1)
    return f"\n{label} " if label else "\n- "


def _reference_item(node: LatexMacroNode, l2tobj: _Converter) -> str:
    return f"\n\n[{_label(node)}] "


def _in_math(node: LatexMacroNode, l2tobj: _Converter) -> str:
    argument = node.nodeargd.argnlist[0] if node.nodeargd and node.nodeargd.argnlist else None
    written = str(argument.latex_verbatim()) if argument is not None else ""
    inner = written[1:-1] if written.startswith("{") and written.endswith("}") else written
    return inner if inner.startswith("$") else f"${inner.replace(chr(92) + 'ensuremath', '')}$"


def _verbatim(node: LatexEnvironmentNode, l2tobj: _Converter) -> str:
    return "\n" + str(node.nodeargd.verbatim_text).strip("\n") + "\n"


def _verbatim_words(node: LatexMacroNode, l2tobj: _Converter) -> str:
    return str(node.nodeargd.verbatim_text)
