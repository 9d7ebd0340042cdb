"""One LaTeX text of a whole paper: files taken in, comments gone, the author's macros written out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from longalign_core.corpora.latex_macros import KEPT_NAMES, Environment, Macro, simple_macro, theorem
from longalign_core.corpora.latex_project import Project
from longalign_core.corpora.latex_source import EndlessMacrosError, LatexSource

__all__ = ["EndlessMacrosError", "Expanded", "expand"]

MAX_EXPANSIONS = 200_000
_MAX_DEPTH, _MAX_FILES_DEEP = 60, 20
_VERBATIM = ("verbatim", "Verbatim", "lstlisting", "minted", "BVerbatim", "LVerbatim")
_UNSHOWN = ("comment", "filecontents")
_OF_TEX = (
    "epsf",
    "psfig",
    "amssym.def",
    "amssym.tex",
    "amssym",
    "pstricks",
    "xy",
    "xypic",
    "glyphtounicode",
    "prepictex",
)
_CONDITIONS_OF_TEX = frozenset(
    "if ifcase ifcat ifx ifnum ifdim ifodd ifvmode ifhmode ifmmode ifinner ifvoid ifhbox ifvbox ifeof ifdefined ifcsname "
    "ifpdf ifxetex ifluatex".split()
)
_NEXT = re.compile(r"[\\%]")
_COMMENT = re.compile(r"%[^\n]*(?:\n[ \t]*|$)")
_BLANKS = re.compile(r"[ \t]*(?:\n[ \t]*(?!\s*\n))?")
_FILE_NAME = re.compile(r"\s*(?:\{([^{}]*)\}|([^\s{}\\%]+))")
_LENGTH = re.compile(
    r"\s*=?\s*-?(?:\d*\.)?\d+\s*(?:true)?(?:pt|cm|mm|in|em|ex|pc|sp|bp|mu|(?=\\))(?:\\\w+)?"
    r"(?:\s*(?:plus|minus)\s*-?(?:\d*\.)?\d+\s*\w+)*[ \t]*"
)
_PARAMETER_TEXT = re.compile(r"((?:[ \t]*#[1-9])*)\s*(?=\{)")
_OTHER_PARAMETER_TEXT = re.compile(r"[^{}\\%]*(?=\{)")
_RULE_TRIM = re.compile(r"[ \t]*\([a-z{}0-9.]*\)")
_LET = re.compile(r"\s*=?[ \t]?")
_CONDITION = re.compile(r"\\(if(?!f\b|thenelse\b)[A-Za-z@]*|else|fi)(?![A-Za-z@])|(?<!\\)%[^\n]*")
_PERCENT = re.compile(r"(?<!\\)%")


@dataclass(frozen=True, slots=True)
class Expanded:
    """A whole paper.

    Attributes:
        latex: Its source.
        missing: Files it takes in that are not there.
    """

    latex: str
    missing: tuple[str, ...]


def expand(project: Project, root: str, *, bibliography: bool) -> Expanded:
    """Write out the files, macros and conditions of a paper.

    Macros that program TeX stay as they are written. Nothing is read from outside of the project.

    Args:
        project: Its files.
        root: Path of the one to begin with.
        bibliography: Whether to take in the list of references.

    Raises:
        EndlessMacrosError: The macros do not come to an end.
    """
    expander = _Expander(project, root, bibliography=bibliography)
    return Expanded(expander.run(), tuple(expander.missing))


class _Expander:
    def __init__(self, project: Project, root: str, *, bibliography: bool) -> None:
        self.missing: dict[str, None] = {}
        self._project, self._root, self._bibliography = project, root, bibliography
        self._source = LatexSource()
        self._out: list[str] = []
        self._after_word = False
        self._is_muted = False
        self._num_expansions = 0
        self._macros: dict[str, Macro | None] = {}
        self._environments: dict[str, Environment] = {}
        self._switches = {"true": True, "false": False}
        self._styles: set[str] = set()
        self._open_conditions: list[bool] = []

    def run(self) -> str:
        self._source.push(self._project.text(self._root) or "", file=self._root)
        self._read()
        return "".join(self._out)

    def _read(self) -> None:
        source = self._source
        while (frame := source.top()) is not None:
            found = _NEXT.search(frame.text, frame.at)
            if found is None:
                self._write(frame.text[frame.at :])
                frame.at = len(frame.text)
                continue
            self._write(frame.text[frame.at : found.start()])
            frame.at = found.start()
            if found[0] == "%":
                source.match(_COMMENT)
                if source.peek() == "\n" and frame is source.top():
                    self._write("\n")
                continue
            depth = frame.depth
            name = source.control()
            if name is None:
                frame.at += 1  # a backslash that ends the text
            else:
                self._control(name, depth)

    def _write(self, text: str) -> None:
        if not text or self._is_muted:
            return
        if self._after_word and text[0].isalpha():
            text = " " + text
        self._after_word = False
        self._out.append(text)

    def _write_control(self, name: str) -> None:
        self._write(f"\\{name}")
        self._after_word = name[-1:].isalpha()

    def _control(self, name: str, depth: int) -> None:
        macro = self._macros.get(name)
        if macro is not None and depth < _MAX_DEPTH:
            self._expand(macro, depth)
        else:
            self._primitive(name)

    def _primitive(self, name: str) -> None:
        if handler := _HANDLERS.get(name):
            handler(self, name)
        elif name in _CONDITIONS_OF_TEX:
            self._open_conditions.append(False)
            self._write_control(name)
        elif name.startswith("if") and name[2:] in self._switches:
            self._condition(self._switches[name[2:]])
        elif name.endswith(("true", "false")) and name.removesuffix("true").removesuffix("false") in self._switches:
            stem = name.removesuffix("true").removesuffix("false")
            self._switches[stem] = name.endswith("true")
        else:
            self._write_control(name)

    def _expand(self, macro: Macro, depth: int) -> None:
        if macro.is_final:
            self._primitive(macro.body)
            return
        self._num_expansions += 1
        if self._num_expansions > MAX_EXPANSIONS:
            raise EndlessMacrosError
        source = self._source
        arguments: list[str] = []
        if macro.default is not None:
            given = source.optional()
            arguments.append(macro.default if given is None else given)
        while len(arguments) < macro.num_parameters:
            arguments.append(source.argument())
        if not macro.num_parameters:
            source.match(_BLANKS)
        source.push(macro.filled(arguments), depth=depth + 1)

    # Definitions.

    def _define(self, name: str) -> None:
        """`\\newcommand{\\name}[2][default]{body}` and its like."""
        source = self._source
        self._star()
        defined = source.argument().strip().lstrip("\\")
        count, default = source.optional(), source.optional()
        body = source.argument()
        if name == "providecommand" and defined in self._macros:
            return
        if name == "DeclareMathOperator":
            body = rf"\operatorname{{{body}}}"
        self._keep(defined, simple_macro(_number(count), default, body))

    def _define_tex(self, name: str) -> None:
        """`\\def\\name#1#2{body}`."""
        source = self._source
        source.skip_blanks()
        defined = source.control()
        if defined is None:
            return
        parameters = source.match(_PARAMETER_TEXT)
        if parameters is None:
            source.match(_OTHER_PARAMETER_TEXT)
        body = source.group()
        if body is None:
            self._macros.pop(defined, None)
        else:
            self._keep(defined, simple_macro(parameters[1].count("#"), None, body) if parameters else None)

    def _let(self, name: str) -> None:
        source = self._source
        source.skip_blanks()
        defined = source.control()
        source.match(_LET)
        meant = source.argument()
        if defined is None:
            return
        if meant.startswith("\\") and meant[1:] in self._macros:
            self._keep(defined, self._macros[meant[1:]])
        elif meant.startswith("\\"):
            self._keep(defined, Macro(0, None, meant[1:], is_final=True))
        else:
            self._keep(defined, Macro(0, None, meant))

    def _keep(self, name: str, macro: Macro | None) -> None:
        if name and name not in KEPT_NAMES and name not in _HANDLERS:
            self._macros[name] = macro

    def _define_environment(self, name: str) -> None:
        source = self._source
        self._star()
        defined = source.argument().strip()
        count, default = source.optional(), source.optional()
        begin = simple_macro(_number(count), default, source.argument())
        end = simple_macro(0, None, source.argument())
        if begin and end and defined not in KEPT_NAMES:
            self._environments[defined] = Environment(begin, end.body)

    def _define_theorem(self, name: str) -> None:
        source = self._source
        self._star()
        defined = source.argument().strip()
        source.optional()
        title = source.argument()
        source.optional()
        self._environments[defined] = theorem(title)

    def _define_switch(self, name: str) -> None:
        self._source.skip_blanks()
        switch = self._source.control()
        if switch:
            self._switches[switch.removeprefix("if")] = False

    # Conditions.

    def _condition(self, holds: bool) -> None:
        if holds:
            self._open_conditions.append(True)
        elif self._skip_branch() == "else":
            self._open_conditions.append(True)

    def _else_or_fi(self, name: str) -> None:
        is_ours = bool(self._open_conditions) and self._open_conditions[-1]
        if self._open_conditions and (is_ours or name == "fi"):
            self._open_conditions.pop()
        if not is_ours:
            self._write_control(name)
        elif name == "else":
            self._skip_branch()

    def _skip_branch(self) -> str:
        """Pass over what is not read, up to the `\\else` or `\\fi` that ends it; returns which."""
        depth = 0
        frame = self._source.top()
        for found in _CONDITION.finditer(frame.text, frame.at) if frame else ():
            word = found[1] or ""
            if depth == 0 and word in ("else", "fi"):
                assert frame is not None, "found something where there is no text"
                frame.at = found.end()
                return word
            depth += word.startswith("if")
            depth -= word == "fi"
        return ""  # never ended: then it hides nothing

    # Environments, and text that is not to be read as LaTeX.

    def _begin(self, name: str) -> None:
        source = self._source
        depth = source.frames[-1].depth if source.frames else 0
        environment = source.argument().strip()
        plain = environment.rstrip("*")
        if plain in _UNSHOWN:
            source.until(rf"\end{{{environment}}}")
        elif plain in _VERBATIM:
            if plain != "verbatim":
                source.optional()
            if plain == "minted":
                source.argument()
            text = source.until(rf"\end{{{environment}}}").replace(r"\end{verbatim}", "")
            self._write(rf"\begin{{verbatim}}{text}\end{{verbatim}}")
        elif environment in self._environments and depth < _MAX_DEPTH:
            self._expand(self._environments[environment].begin, depth)
        else:
            self._write(rf"\begin{{{environment}}}")

    def _end(self, name: str) -> None:
        source = self._source
        depth = source.frames[-1].depth if source.frames else 0
        environment = source.argument().strip()
        if environment == "document":
            if not self._is_muted:
                source.frames.clear()
                self._write(r"\end{document}")
        elif environment in self._environments and depth < _MAX_DEPTH:
            self._expand(Macro(0, None, self._environments[environment].end), depth)
        else:
            self._write(rf"\end{{{environment}}}")

    def _verb(self, name: str) -> None:
        source = self._source
        self._star()
        if name == "lstinline":
            source.optional()
        sign = source.peek()
        frame = source.top()
        if frame is None or sign in ("", "\n"):
            return
        frame.at += 1
        text = source.until("}" if sign == "{" else sign)
        sign = next((mark for mark in "|!+/@" if mark not in text), sign)
        self._write(rf"\verb{sign}{text}{sign}")

    def _address(self, name: str) -> None:
        self._write_control(name)
        address = self._source.group()
        if address is not None:
            self._source.push("{" + _PERCENT.sub(r"\\%", address) + "}")

    # Files.

    def _input(self, name: str) -> None:
        source = self._source
        found = source.match(_FILE_NAME)
        if found is None:
            return
        wanted = (found[1] if found[1] is not None else found[2]).strip()
        if name in ("import", "subimport"):
            wanted = f"{wanted.rstrip('/')}/{source.argument().strip()}"
        self._take_in(wanted)

    def _take_in(self, wanted: str) -> None:
        open_files = [frame.file for frame in self._source.frames if frame.file]
        beside = open_files[-1] if open_files else self._root
        path = self._project.find(wanted, beside=beside) or self._project.find(wanted, beside=self._root)
        text = self._project.text(path) if path else None
        if path is None or text is None:
            if wanted and wanted not in _OF_TEX and not self._is_muted:
                self.missing[wanted] = None
        elif path not in open_files and path != self._root and len(open_files) < _MAX_FILES_DEEP:
            self._source.push(_body(text) + "\n", file=path)

    def _style(self, name: str) -> None:
        """An author's own style file: only its definitions count."""
        source = self._source
        source.optional()
        for style in source.argument().split(","):
            path = self._project.find(style, beside=self._root, suffixes=(".sty",))
            text = self._project.text(path) if path else None
            if path is None or text is None or path in self._styles:
                continue
            self._styles.add(path)
            outer, self._source, was_muted = self._source, LatexSource(), self._is_muted
            self._source.at_is_letter, self._is_muted = True, True
            self._source.push(text, file=path)
            self._read()
            self._source, self._is_muted = outer, was_muted

    def _references(self, name: str) -> None:
        self._source.optional()
        if name == "bibliography":
            self._source.argument()
        path = self._project.bibliography(self._root) if self._bibliography else None
        text = self._project.text(path) if path else None
        if text and r"\begin{thebibliography}" in text:
            self._source.push(text, file=path)

    # Small ones.

    def _star(self) -> None:
        self._source.skip_blanks()
        frame = self._source.top()
        if frame is not None and self._source.peek() == "*":
            frame.at += 1

    def _space_after(self, name: str) -> None:
        following = self._source.peek()
        if following.isalnum() or following in ("(", "$", "\\"):
            self._write(" ")

    def _length(self, name: str) -> None:
        if self._source.match(_LENGTH) is None:
            self._write_control(name)

    def _rule(self, name: str) -> None:
        self._source.match(_RULE_TRIM)
        self._write_control(name)

    def _letters(self, name: str) -> None:
        self._source.at_is_letter = name == "makeatletter"

    def _end_input(self, name: str) -> None:
        self._source.drop_file()

    def _ignore(self, name: str) -> None:
        self._source.match(_BLANKS)


def _body(text: str) -> str:
    """What a file gives that has a preamble of its own and is taken in by another."""
    if not re.search(r"^\s*\\document(?:class|style)\b", text, re.M):
        return text
    _, _, body = text.partition(r"\begin{document}")
    return body.partition(r"\end{document}")[0] if body else text


def _number(count: str | None) -> int:
    count = (count or "0").strip()
    return int(count) if count.isdecimal() and len(count) == 1 else 0


_Handler = Callable[[_Expander, str], None]
_HANDLERS: dict[str, _Handler] = {}
for _handler, _names in (
    (_Expander._define, "newcommand renewcommand providecommand DeclareRobustCommand DeclareMathOperator"),
    (_Expander._define_tex, "def gdef edef xdef"),
    (_Expander._let, "let"),
    (_Expander._define_environment, "newenvironment renewenvironment"),
    (_Expander._define_theorem, "newtheorem"),
    (_Expander._define_switch, "newif"),
    (_Expander._else_or_fi, "else fi"),
    (_Expander._begin, "begin"),
    (_Expander._end, "end"),
    (_Expander._verb, "verb lstinline"),
    (_Expander._address, "url href path"),
    (_Expander._input, "input include subfile subfileinclude import subimport"),
    (_Expander._style, "usepackage RequirePackage"),
    (_Expander._references, "bibliography printbibliography"),
    (_Expander._space_after, "xspace"),
    (
        _Expander._length,
        "vskip hskip kern parindent parskip baselineskip textwidth textheight topmargin oddsidemargin "
        "evensidemargin columnsep raggedbottom abovedisplayskip belowdisplayskip hsize vsize tabcolsep",
    ),
    (_Expander._rule, "cmidrule"),
    (_Expander._letters, "makeatletter makeatother"),
    (_Expander._end_input, "endinput"),
    (_Expander._ignore, "expandafter protect noexpand relax long global outer leavevmode"),
):
    _HANDLERS.update(dict.fromkeys(_names.split(), _handler))
