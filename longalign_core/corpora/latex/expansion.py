"""One LaTeX text of a whole paper: files taken in, comments gone, the author's macros written out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from longalign_core.corpora.latex.conditions import Conditions
from longalign_core.corpora.latex.definitions import DEFINING, Definitions
from longalign_core.corpora.latex.macros import Macro
from longalign_core.corpora.latex.project import Project
from longalign_core.corpora.latex.source import MAX_WORK, LatexSource

_MAX_DEPTH, _MAX_FILES_DEEP = 60, 20
_VERBATIM = ("verbatim", "Verbatim", "lstlisting", "minted", "BVerbatim", "LVerbatim")
_UNSHOWN = ("comment", "filecontents")
_OF_TEX = (
    "epsf", "psfig", "amssym.def", "amssym.tex", "amssym", "pstricks", "xy", "xypic", "glyphtounicode", "prepictex",
)  # fmt: skip
_LENGTHS = (
    "vskip", "hskip", "kern", "parindent", "parskip", "baselineskip", "textwidth", "textheight", "topmargin",
    "oddsidemargin", "evensidemargin", "columnsep", "abovedisplayskip", "belowdisplayskip", "hsize", "vsize",
    "tabcolsep",
)  # fmt: skip
_WITHOUT_EFFECT = (
    "expandafter", "protect", "noexpand", "relax", "long", "global", "outer", "leavevmode",
)  # fmt: skip
_NEXT = re.compile(r"[\\%]")
_COMMENT = re.compile(r"%[^\n]*(?:\n[ \t]*|$)")
_BLANKS = re.compile(r"[ \t]*(?:\n[ \t]*(?!\s*\n))?")
_FILE_NAME = re.compile(r"\s*(?:\{([^{}]*)\}|([^\s{}\\%]+))")
_LENGTH = re.compile(
    r"\s*=?\s*-?(?:\d*\.)?\d+\s*(?:true)?(?:pt|cm|mm|in|em|ex|pc|sp|bp|mu|(?=\\))(?:\\\w+)?"
    r"(?:\s*(?:plus|minus)\s*-?(?:\d*\.)?\d+\s*\w+)*[ \t]*"
)
_RULE_TRIM = re.compile(r"[ \t]*\([a-z{}0-9.]*\)")
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


def expand(project: Project, root: str, *, bibliography: bool, max_work: int = MAX_WORK) -> Expanded:
    """Write out the files, macros and conditions of a paper.

    Macros that program TeX stay as they are written. Nothing is read from outside of the project.

    Args:
        project: Its files.
        root: Path of the one to begin with.
        bibliography: Whether to take in the list of references.
        max_work: Characters that may be looked at and written.

    Raises:
        EndlessMacrosError: They were not enough: the macros do not come to an end.
    """
    expander = _Expander(project, root, LatexSource(max_work), bibliography=bibliography)
    return Expanded(expander.run(), tuple(expander.missing))


class _Expander:
    def __init__(self, project: Project, root: str, source: LatexSource, *, bibliography: bool) -> None:
        self.missing: dict[str, None] = {}
        self._project, self._root, self._bibliography = project, root, bibliography
        self._source = source
        self._out: list[str] = []
        self._after_word = False
        self._is_muted = False
        self._definitions, self._conditions = Definitions(), Conditions()
        self._styles: set[str] = set()
        for name in _HANDLERS:
            self._definitions.reserve(name)

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
        self._after_word = not self._is_muted and name[-1:].isalpha()

    def _control(self, name: str, depth: int) -> None:
        macro = self._definitions.macros.get(name)
        if macro is not None and depth < _MAX_DEPTH:
            self._expand(macro, depth)
        else:
            self._primitive(name)

    def _primitive(self, name: str) -> None:
        if name in DEFINING:
            self._definitions.read(name, self._source)
        elif handler := _HANDLERS.get(name):
            handler(self, name)
        elif self._conditions.read(name, self._source):
            self._source.match(_BLANKS)
        else:
            self._write_control(name)

    def _expand(self, macro: Macro, depth: int) -> None:
        if macro.is_final:
            self._primitive(macro.body)
            return
        source = self._source
        arguments: list[str] = []
        if macro.default is not None:
            given = source.optional()
            arguments.append(macro.default if given is None else given)
        while len(arguments) < macro.num_parameters:
            arguments.append(source.argument())
        if not macro.num_parameters:
            source.match(_BLANKS)
        source.spend(macro.num_characters(arguments))
        source.push(macro.filled(arguments), depth=depth + 1)

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
        elif environment in self._definitions.environments and depth < _MAX_DEPTH:
            self._expand(self._definitions.environments[environment].begin, depth)
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
        elif environment in self._definitions.environments and depth < _MAX_DEPTH:
            self._expand(self._definitions.environments[environment].end, depth)
        else:
            self._write(rf"\end{{{environment}}}")

    def _verb(self, name: str) -> None:
        source = self._source
        self._source.star()
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
        address = self._source.raw_group()
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
        text = self._project.body(path) if path else None
        if path is None or text is None:
            if wanted and wanted not in _OF_TEX and not self._is_muted:
                self.missing[wanted] = None
        elif path not in open_files and path != self._root and len(open_files) < _MAX_FILES_DEEP:
            self._source.push(text + "\n", file=path)

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
            outer, self._source, was_muted = source, LatexSource(source.work_left), self._is_muted
            self._source.at_is_letter, self._is_muted = True, True
            self._source.push(text, file=path)
            self._read()
            outer.work_left = self._source.work_left
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


_Handler = Callable[[_Expander, str], None]
_HANDLERS: dict[str, _Handler] = {
    "begin": _Expander._begin,
    "end": _Expander._end,
    **dict.fromkeys(("verb", "lstinline"), _Expander._verb),
    **dict.fromkeys(("url", "href", "path"), _Expander._address),
    **dict.fromkeys(("input", "include", "subfile", "subfileinclude", "import", "subimport"), _Expander._input),
    **dict.fromkeys(("usepackage", "RequirePackage"), _Expander._style),
    **dict.fromkeys(("bibliography", "printbibliography"), _Expander._references),
    "xspace": _Expander._space_after,
    **dict.fromkeys(_LENGTHS, _Expander._length),
    "cmidrule": _Expander._rule,
    **dict.fromkeys(("makeatletter", "makeatother"), _Expander._letters),
    "endinput": _Expander._end_input,
    **dict.fromkeys(_WITHOUT_EFFECT, _Expander._ignore),
}
