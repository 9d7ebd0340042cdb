"""How LaTeX's and the usual packages' commands take arguments, and what text they give.

Arguments are described as pylatexenc does: `*` a star, `[` one in brackets, `{` one in braces.
"""

from __future__ import annotations

_CITATIONS = (
    "cite", "citet", "citep", "citealt", "citealp", "citeauthor", "citefullauthor", "citeyear", "citeyearpar",
    "Citet", "Citep", "Citealt", "Citealp", "Citeauthor", "parencite", "textcite", "autocite", "footcite",
    "fullcite", "supercite", "onlinecite", "citenum", "shortcite", "citetalias", "citepalias",
)  # fmt: skip
_HEADINGS = (
    "part", "chapter", "section", "subsection", "subsubsection", "paragraph", "subparagraph",
)  # fmt: skip

_UNSHOWN_WITH_ARGUMENT = (
    "label", "bibliographystyle", "bibliography", "pagestyle", "thispagestyle", "pagenumbering", "theoremstyle",
    "graphicspath", "hypersetup", "lstset", "tikzset", "pgfplotsset", "usetikzlibrary", "captionsetup", "date",
    "preprint", "citestyle", "setcitestyle", "urlstyle", "stepcounter", "refstepcounter", "phantom", "hphantom",
    "vphantom", "cline", "index", "nocite", "allowdisplaybreaks", "numberwithin", "addbibresource", "bibdata",
    "subjclass", "pacs", "pubyear", "volume", "firstpage", "lastpage", "received", "accepted", "revised",
    "tablenum", "tablewidth", "tabletypesize", "tablecolumns", "markright", "setstretch", "linespread", "cmidrule",
    "selectlanguage", "enlargethispage",
)  # fmt: skip
_EQUATIONS = (
    "equation", "eqnarray", "align", "gather", "flalign", "multline", "displaymath", "math", "dmath",
)  # fmt: skip
_STEPS = {
    name: text
    for step, text in (
        ("state", "\n"), ("require", "\nRequire: "), ("ensure", "\nEnsure: "), ("return", "return "), ("if", "\nif "),
        ("elsif", "\nelse if "), ("else", "\nelse"), ("for", "\nfor "), ("forall", "\nfor all "), ("while", "\nwhile "),
        ("repeat", "\nrepeat"), ("until", "\nuntil "),
    )
    for name in (step.upper(), step.title())
}  # fmt: skip
_JOURNALS = {
    "aj": "AJ", "apj": "ApJ", "apjl": "ApJ", "apjs": "ApJS", "aap": "A&A", "aaps": "A&AS", "araa": "ARA&A",
    "mnras": "MNRAS", "nat": "Nature", "pasj": "PASJ", "pasp": "PASP", "prd": "Phys. Rev. D", "prl": "Phys. Rev. Lett.",
    "jcap": "JCAP", "physrep": "Phys. Rep.", "solphys": "Sol. Phys.", "ssr": "Space Sci. Rev.", "icarus": "Icarus",
}  # fmt: skip

ARGUMENTS: dict[str, str] = {
    **dict.fromkeys(_CITATIONS, "*[[{"),
    **dict.fromkeys(_HEADINGS, "*[{"),
    **dict.fromkeys(("ref", "autoref", "cref", "Cref", "vref", "nameref", "eqref", "pageref"), "*{"),
    "title": "[{",
    "author": "[{",
    "abstract": "{",
    "keywords": "{",
    "caption": "*[{",
    "captionof": "{*[{",
    "footnote": "[{",
    "footnotetext": "[{",
    "thanks": "{",
    "item": "[",
    "bibitem": "[{",
    "url": "{",
    "path": "{",
    "href": "[{{",
    "multicolumn": "{{{",
    "multirow": "[{[{[{",
    "textcolor": "[{{",
    "colorbox": "[{{",
    "fcolorbox": "[{[{{",
    "parbox": "[[[{{",
    "raisebox": "{[[{",
    "makebox": "[[{",
    "framebox": "[[{",
    "resizebox": "*{{{",
    "scalebox": "{[{",
    "rotatebox": "[{{",
    "adjustbox": "{{",
    "theoremheading": "{{",
    "texorpdfstring": "{{",
    "ensuremath": "{",
    "mbox": "{",
    "hypertarget": "{{",
    "hyperlink": "{{",
    "hyperref": "[{",
    "altaffilmark": "{",
    "altaffiltext": "{{",
    **dict.fromkeys(
        ("textsf", "texttt", "textmd", "textup", "textnormal", "underline", "fbox", "hbox", "uppercase"), "{"
    ),
    "SI": "[{{",
    "num": "[{",
    "operatorname": "*{",
}
"""Commands whose arguments are text, or from which text is made."""

DROPPED: dict[str, str] = {
    **dict.fromkeys(("includegraphics", "epsfig", "psfig", "epsfbox", "epsffile", "plotone", "figurenum"), "*[[{"),
    **dict.fromkeys(("plottwo", "setlength", "addtolength", "setcounter", "addtocounter", "fontsize"), "{{"),
    **dict.fromkeys(_UNSHOWN_WITH_ARGUMENT, "{"),
    **dict.fromkeys(("vspace", "hspace", "footnotemark", "linebreak", "pagebreak", "nopagebreak", "toprule"), "*["),
    "vspace": "*{",
    "hspace": "*{",
    "midrule": "[",
    "bottomrule": "[",
    "color": "[{",
    "pagecolor": "[{",
    "tikz": "[{",
    "defcitealias": "{{",
    "definecolor": "[{{{",
    "colorlet": "[{[{",
    "rule": "[{{",
    "markboth": "{{",
    "numberwithin": "{{",
    "addcontentsline": "{{{",
    "DeclareGraphicsExtensions": "{",
    "documentclass": "[{[",
    "documentstyle": "[{",
    "usepackage": "[{[",
    "maketitle": "",
    "tableofcontents": "",
    "listoffigures": "",
    "listoftables": "",
    "today": "",
    "hline": "",
    "clearpage": "",
    "newpage": "",
}
"""Commands that show nothing, or nothing that is read."""

REPLACED: dict[str, str] = {
    "paragraph": "\n\n%(3)s ",
    "subparagraph": "\n\n%(3)s ",
    "and": ", ",
    "abstract": "\n\nAbstract\n\n%(1)s\n\n",
    "keywords": "\n\nKeywords: %(1)s\n\n",
    "caption": "\n\n%(3)s\n\n",
    "captionof": "\n\n%(4)s\n\n",
    "footnote": " [%(2)s]",
    "footnotetext": " [%(2)s]",
    "thanks": " [%(1)s]",
    "newblock": " ",
    "url": "%(1)s",
    "path": "%(1)s",
    "href": "%(3)s <%(2)s>",
    "eqref": "(%(2)s)",
    "pageref": "%(2)s",
    "multicolumn": "%(3)s",
    "multirow": "%(6)s",
    "textcolor": "%(3)s",
    "colorbox": "%(3)s",
    "fcolorbox": "%(5)s",
    "parbox": "%(5)s",
    "raisebox": "%(4)s",
    "makebox": "%(3)s",
    "framebox": "%(3)s",
    "resizebox": "%(4)s",
    "scalebox": "%(3)s",
    "rotatebox": "%(3)s",
    "adjustbox": "%(2)s",
    "texorpdfstring": "%(1)s",
    **dict.fromkeys(("mbox", "fbox", "hbox", "uppercase", "underline"), "%(1)s"),
    **dict.fromkeys(("textsf", "texttt", "textmd", "textup", "textnormal"), "%(1)s"),
    "hypertarget": "%(2)s",
    "hyperlink": "%(2)s",
    "hyperref": "%(2)s",
    "altaffilmark": "",
    "altaffiltext": "\n\n%(2)s\n\n",
    "acknowledgements": "\n\nAcknowledgements\n\n",
    "acknowledgments": "\n\nAcknowledgments\n\n",
    **_STEPS,
    **_JOURNALS,
    "SI": "%(2)s %(3)s",
    "num": "%(2)s",
    "operatorname": "%(2)s",
    "\\": "\n",
    "tabularnewline": "\n",
    "newline": "\n",
    "par": "\n\n",
    " ": " ",
    "\n": " ",
    ",": " ",
    ";": " ",
    ":": " ",
    "quad": " ",
    "qquad": " ",
    "space": " ",
    "hfill": " ",
    "LaTeX": "LaTeX",
    "TeX": "TeX",
    "S": "§",
    "P": "¶",
    "dots": "…",
    "ldots": "…",
    "textellipsis": "…",
}
"""Text of a command, with its arguments by number."""

MATH: dict[str, str] = {
    **dict.fromkeys(
        [name + star for name in _EQUATIONS for star in ("", "*")],
        "",
    ),
    **dict.fromkeys(("alignat", "alignat*", "xalignat", "xalignat*"), "{"),
    **dict.fromkeys(("IEEEeqnarray", "IEEEeqnarray*"), "[{"),
}
"""Environments of mathematics, which stay as they are written."""

DROPPED_ENVIRONMENTS = (
    "tikzpicture", "pgfpicture", "picture", "pspicture", "pspicture*", "overpic", "CCSXML", "asy", "feynman",
    "fmffile",
)  # fmt: skip
"""Pictures that are drawn, and what the publisher reads."""

ENVIRONMENTS: dict[str, str] = {
    **dict.fromkeys(("figure", "figure*", "table", "table*", "sidewaysfigure", "sidewaystable", "algorithm"), "["),
    **dict.fromkeys(("tabular", "longtable", "deluxetable", "deluxetable*", "supertabular", "tabulary"), "[{"),
    **dict.fromkeys(
        ("itemize", "enumerate", "description", "compactitem", "compactenum", "inparaenum", "algorithmic"), "["
    ),
    **dict.fromkeys(
        ("center", "flushleft", "flushright", "quote", "quotation", "acknowledgments", "acknowledgements"), ""
    ),
    "tabular*": "{[{",
    "tabularx": "{[{",
    "minipage": "[[[{",
    "wrapfigure": "[{[{",
    "wraptable": "{{",
    "subfigure": "[{",
    "subtable": "[{",
    "multicols": "{",
    "adjustbox": "{",
    "adjustwidth": "{{",
    "spacing": "{",
    "list": "{{",
    "thebibliography": "{",
    "tcolorbox": "[",
    "mdframed": "[",
    "proof": "[",
}
"""Environments of text with their arguments, which are not shown."""
