import gzip
import io
import random
import tarfile

import pytest

from longalign_core.corpora.formats import arxiv as arxiv_module
from longalign_core.corpora.latex.expansion import expand
from longalign_core.corpora.latex.project import Project
from longalign_core.corpora.latex.source import EndlessMacrosError
from longalign_core.corpora.latex.text import latex_text
from longalign_core.corpora.reading import RawDocument
from longalign_core.source_files import SourceFile, list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw, reasons, tar_gz

PAPER = r"\documentclass{article}\title{On $x$}\begin{document}\maketitle Body of the paper.\end{document}"


def project(**files: str) -> Project:
    return Project({name.replace("__", "/").replace("_", ".", 1): text.encode() for name, text in files.items()})


def expanded(text: str, **files: str) -> str:
    return expand(project(ms_tex=text, **files), "ms.tex", bibliography=True).latex


def text_of(body: str, preamble: str = "", *, bibliography: bool = False) -> str:
    latex = expanded(rf"\documentclass{{article}}{preamble}\begin{{document}}{body}\end{{document}}")
    return latex_text(latex, bibliography=bibliography).text


def tar(members: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    return gzip.decompress(tar_gz(members, *more))


def packed(latex: str) -> bytes:
    return gzip.compress(latex.encode(), mtime=0)


# Real papers.


def test_arxiv_reader_real_bulk_tar_gives_both_papers(test_data):
    files = list_files(test_data / "corpora" / "arxiv").files
    documents, rejects = read_all(files, corpus("arxiv"))
    assert rejects == []
    assert [(one.id, one.url, one.title, one.created, one.origin) for one in documents] == [
        (
            "sample:1202.3665",
            "https://arxiv.org/abs/1202.3665",
            "emcee: The MCMC Hammer",
            "2012-02",
            "arXiv_src_1202_001.tar: 1202/1202.3665.gz",
        ),
        (
            "sample:1911.07688",
            "https://arxiv.org/abs/1911.07688",
            "emcee v3: A Python ensemble sampling toolkit for affine-invariant MCMC",
            "2019-11",
            "arXiv_src_1202_001.tar: 1202/1911.07688.gz",
        ),
    ]
    hammer, toolkit = (" ".join(document.text.split()) for document in documents)
    for words in (
        "Abstract We introduce a stable, well tested Python implementation of the affine-invariant ensemble sampler",
        "The code is available online at http://dan.iel.fm/emcee under the MIT License.",
        r"The exact result of marginalization is the marginalized probability function $p({\Theta}| {D})$ of the set",
        r"$\Theta$ given the set of observations $D$ \begin{equation} \label{eq:marginalization}",
        "K\u00f6nigstuhl 17, D-69117 Heidelberg",
        "Running the command % pip install emcee at the command line",
        "see large-scale variations over the full run length",
    ):
        assert words in hammer
    for absent in (
        r"\this",
        r"\Python",
        r"\paper",
        "newcommand",
        "includegraphics",
        "% has to be before",
        "Akeret, J.",
    ):
        assert absent not in hammer
    assert "emcee is a Python library implementing a class of affine-invariant ensemble samplers" in toolkit
    assert "Oriol Abril Pla" in toolkit
    assert "baseline=" not in toolkit


def test_arxiv_reader_bibliography_is_kept_when_asked_for(test_data):
    files = list_files(test_data / "corpora" / "arxiv").files
    documents, _ = read_all(files, corpus("arxiv", bibliography=True))
    assert "[Goodman:2010]" in documents[0].text
    assert "Comm. App. Math. Comp. Sci., 5, 65" in documents[0].text


def test_arxiv_reader_going_on_at_any_position_gives_the_rest():
    data = tar(
        {
            "1202/1202.0001.gz": packed(PAPER),
            "1202/1202.0002.pdf": b"%PDF",
            "1202/1202.0003.gz": tar_gz({"a.tex": PAPER.replace("Body", r"\input{gone}"), "../b.tex": "x"}),
            "1202/1202.0004.gz": b"no gzip",
            "1202/1202.0005.gz": packed(PAPER),
        }
    )
    for content in (data, data[: data.index(b"1202/1202.0005.gz") + 600]):
        files, config = [in_memory("a.tar", content)], corpus("arxiv")
        whole = list(read_raw(files, config))
        positions = [position for _, position in whole]
        assert len(whole) == 7
        for position in set(positions) - {0}:
            assert list(read_raw(files, config, position=position)) == whole[positions.index(position) + 1 :]


# Which files, which root, what name.


@pytest.mark.parametrize(
    ("member", "id", "month"),
    [
        ("1202/1202.3665.gz", "1202.3665", "2012-02"),
        ("2301.12345v2.gz", "2301.12345v2", "2023-01"),
        ("0001/astro-ph0001001.gz", "astro-ph/0001001", "2000-01"),
        ("9202/hep-th9202001.gz", "hep-th/9202001", "1992-02"),
        ("math.AG0601001.gz", "math.AG/0601001", "2006-01"),
    ],
)
def test_arxiv_reader_ids_of_both_styles_give_name_address_and_month(member, id, month):
    (document,), _ = read_all([in_memory("a.tar", tar({member: packed(PAPER)}))], corpus("arxiv"))
    assert (document.id, document.url, document.created) == (f"sample:{id}", f"https://arxiv.org/abs/{id}", month)


def test_arxiv_reader_unpacked_layouts_are_read_too():
    files = [
        in_memory("1202.0001.gz", packed(PAPER)),
        in_memory("1202.0002.tar.gz", tar_gz({"x/ms.tex": PAPER})),
        in_memory("own/mine.tex", PAPER),
        in_memory("1202.0003.pdf", b"%PDF"),
        in_memory("notes.md", "x"),
    ]
    documents, rejects = read_all(files, corpus("arxiv"))
    assert [(document.id, document.title, document.url is None) for document in documents] == [
        ("sample:1202.0001", "On $x$", False),
        ("sample:1202.0002", "On $x$", False),
        ("sample:own/mine.tex", "On $x$", True),
    ]
    assert {document.text for document in documents} == {"On $x$\n\nBody of the paper."}
    assert reasons(rejects) == ["other file type", "pdf only"]


@pytest.mark.parametrize(
    ("files", "root"),
    [
        ({"b.tex": PAPER, "a.tex": "words"}, "b.tex"),
        ({"b.tex": PAPER.replace("Body", r"\input{a}"), "a.tex": r"\documentclass{article}\begin{document}"}, "b.tex"),
        ({"a.tex": PAPER, "z.tex": PAPER, "z.bbl": "x"}, "z.tex"),
        ({"a/ms.tex": PAPER, "b.tex": PAPER}, "b.tex"),
        ({"a.tex": PAPER, "main.tex": PAPER}, "main.tex"),
        ({"a.tex": PAPER, "b.tex": PAPER, "00README.XXX": "b.tex toplevelfile"}, "b.tex"),
        ({"a.tex": PAPER, "b.tex": PAPER, "00README.XXX": "a.tex ignore"}, "b.tex"),
        ({"a.tex": "%auto-ignore\n" + PAPER, "b.tex": PAPER}, "b.tex"),
        ({"a.tex": "%" + PAPER, "b.tex": PAPER}, "b.tex"),
        ({"a.tex": PAPER.replace("{article}", "[b]{subfiles}"), "b.tex": PAPER}, "b.tex"),
        ({"old.tex": r"\documentstyle[12pt]{article}\begin{document}x"}, "old.tex"),
        ({"plain.tex": r"\magnification=1200 Words. \bye", "b.tex": "x"}, "plain.tex"),
        ({"a.tex": "This paper was withdrawn."}, None),
        ({}, None),
    ],
)
def test_project_root_is_the_file_the_paper_is_made_from(files, root):
    assert Project({path: text.encode() for path, text in files.items()}).root() == root


def test_arxiv_reader_files_that_are_no_source_are_counted():
    data = {
        "1202.0001.gz": packed("This paper has been withdrawn by the author"),
        "1202.0002.gz": gzip.compress(b"%PDF-1.4"),
        "1202.0003.gz": gzip.compress(b"%!PS-Adobe"),
        "1202.0004.gz": gzip.compress(b"\0\1\2" * 100),
        "1202.0005.gz": tar_gz({"fig.eps": "x"}),
        "1202.0006.gz": packed(""),
        "1202.0007.txt": b"x",
    }
    documents, rejects = read_all([in_memory("a.tar", tar(data))], corpus("arxiv"))
    assert documents == []
    assert reasons(rejects) == ["no root file"] * 5 + ["other file type", "pdf only"]
    assert all("a.tar: 1202.000" in reject.detail for reject in rejects)


def test_arxiv_reader_latin_1_paper_is_read():
    data = gzip.compress(PAPER.replace("Body", "Müller’s").encode("cp1252"))
    (document,), _ = read_all([in_memory("1202.0001.gz", data)], corpus("arxiv"))
    assert "Müller’s of the paper." in document.text


# Files of a project.


def test_arxiv_reader_inputs_are_taken_in_and_missing_ones_told():
    files = {
        "ms.tex": r"\documentclass{article}\begin{document}A \input{sec/one} \include{sec/two.tex}"
        r" % \input{unseen}" + "\n" + r"\input sec/three \input{gone} \subfile{sub} E\end{document}",
        "sec/one.tex": r"B \input{inner}",
        "sec/inner.tex": r"I",
        "sec/two.tex": r"C \input{ms} \input{two}\endinput unread",
        "sec/three.tex": r"D",
        "sub.tex": r"\documentclass[ms]{subfiles}\begin{document}S\end{document}unread",
        "unseen.tex": "unread",
    }
    documents, rejects = read_all([in_memory("1202.0001.gz", tar_gz(files))], corpus("arxiv"))
    assert documents[0].text.split() == ["A", "B", "I", "C", "D", "S", "E"]
    assert [(reject.id, reject.reason) for reject in rejects] == [("sample:1202.0001: missing", "missing input")]
    assert "gone" in rejects[0].detail and "ms.tex" in rejects[0].detail


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "|ls", "../b"])
def test_arxiv_reader_input_from_outside_of_the_project_is_missing(name):
    source = PAPER.replace("Body", rf"\input{{{name}}} Body")
    documents, rejects = read_all(
        [in_memory("1202.0001.gz", tar_gz({"ms.tex": source, "b.tex": "x"}))], corpus("arxiv")
    )
    assert "root:" not in documents[0].text and documents[0].text.endswith("Body of the paper.")
    assert name == "../b" or reasons(rejects) == ["missing input"]


def test_arxiv_reader_bbl_is_taken_in_for_the_bibliography():
    bbl = r"\begin{thebibliography}{9}\bibitem{Ann} Ann, A. 1999, \newblock Book.\end{thebibliography}"
    files = {"ms.tex": PAPER.replace("Body", r"Body \cite{Ann}").replace(r"\end{doc", r"\bibliography{refs}\end{doc")}
    unit = [in_memory("1202.0001.gz", tar_gz({**files, "ms.bbl": bbl}))]
    (without,), _ = read_all(unit, corpus("arxiv"))
    (with_list,), _ = read_all(unit, corpus("arxiv", bibliography=True))
    assert without.text == "On $x$\n\nBody [Ann] of the paper."
    assert with_list.text == without.text + "\n\n[Ann] Ann, A. 1999, Book."


# Macros.


@pytest.mark.parametrize(
    ("source", "result"),
    [
        (r"\newcommand{\a}{A}\a{} \a b", r"A{} Ab"),
        (r"\newcommand\a[1]{<#1>}\a{x} \a y", r"<x> <y>"),
        (r"\newcommand*{\a}[2][d]{#1-#2}\a{x} \a[e]{y}", r"d-x e-y"),
        (r"\def\a#1#2{#2#1}\a{x}{y}\a xy", r"yxyx"),
        (r"\newcommand{\a}[1]{(#1)}\a{\a{\a{x}}}", r"(((x)))"),
        (r"\newcommand{\b}[1]{[#1]}\newcommand{\a}{\b}\a{x}", r"[x]"),
        (r"\newcommand{\dd}{\mathrm d}\newcommand{\al}{\alpha}$\al x\dd x$", r"$\alpha x\mathrm dx$"),
        (r"\newcommand{\eg}{e.g.\xspace}\eg this, \eg.", r"e.g. this, e.g.."),
        (r"\newcommand{\a}{1}\renewcommand{\a}{2}\providecommand{\a}{3}\a", r"2"),
        (r"\let\b\alpha\renewcommand{\alpha}{\b_0}\alpha", r"\alpha_0"),
        (r"\newcommand{\a}{A}\let\b=\a\renewcommand{\a}{N}\b\a", r"AN"),
        (r"\DeclareMathOperator{\tr}{Tr}$\tr A$", r"$\operatorname{Tr}A$"),
        (r"\newenvironment{e}[1]{<#1>}{</>}\begin{e}{x}y\end{e}", r"<x>y</>"),
        (
            r"\newcommand{\be}{\begin{equation}}\newcommand{\ee}{\end{equation}}\be x\ee",
            r"\begin{equation}x\end{equation}",
        ),
        (r"\newcommand{\sun}{\ifmmode M_\odot\else $M_\odot$\fi}\sun", r"\ensuremath{M_\odot}"),
        (r"\def\a{\futurelet\x\y}\a", r"\a"),
        (r"\newcommand{\section}[1]{\bf #1}\section{x}", r"\section{x}"),
        (r"a\iffalse b \iftrue c\fi \else d\fi e", r"ade"),
        (r"\newif\iflong\longtrue\iflong A\else B\fi\longfalse\iflong C\else D\fi", r"AD"),
        ("a% gone\n  b\n% gone\nc 5\\% d \\\\% gone\n\ne", "ab\nc 5\\% d \\\\\n\ne"),
        (r"\verb|%\x| \begin{comment}gone\end{comment}z", r"\verb|%\x| z"),
    ],
)
def test_expand_small_sources_are_written_out_as_tex_does(source, result):
    assert expanded(source).strip() == result


def test_expand_own_style_file_gives_its_macros_and_no_text():
    style = r"\ProvidesPackage{mine}\newcommand{\a}{A}\RequirePackage{other}\makeatletter\def\b@c{x}"
    files = {"ms.tex": rb"\usepackage{amsmath,mine}\a\b", "mine.sty": style.encode(), "other.sty": rb"\def\b{B}junk"}
    assert expand(Project(files), "ms.tex", bibliography=False).latex == "AB"


@pytest.mark.parametrize(
    "source",
    [
        "".join(rf"\def\{chr(97 + n)}{{\{chr(98 + n)}\{chr(98 + n)}}}" for n in range(24)) + r"\a",
        r"\def\a#1{#1#1#1#1#1#1#1#1#1#1}" + r"\a{" * 12 + "x" * 10 + "}" * 12,
        r"\def\a#1{" + "#1" * 200_000 + r"}\a{" + "x" * 200_000 + "}",
        r"\iffalse " * 2_000,
    ],
    ids=["doubling", "tenfold", "one step", "open conditions"],
)
def test_expand_endless_macros_are_refused(source):
    with pytest.raises(EndlessMacrosError):
        expand(project(ms_tex=source), "ms.tex", bibliography=False, max_work=2_000_000)


def test_expand_macro_that_means_itself_stops():
    assert len(expanded(r"\def\a{\a x}\a")) < 1_000


def test_expand_input_files_that_multiply_are_refused():
    files = {f"f{n}.tex": (rf"\input{{f{n + 1}}}" * 8).encode() for n in range(19)}
    files["ms.tex"], files["f19.tex"] = rb"\input{f0}", b"x" * 1_000
    with pytest.raises(EndlessMacrosError):
        expand(Project(files), "ms.tex", bibliography=False, max_work=2_000_000)


@pytest.mark.parametrize("seed", range(12))
def test_arxiv_reader_any_mangled_source_gives_a_record(test_data, seed):
    draw = random.Random(seed)
    files = list_files(test_data / "corpora" / "arxiv").files
    with files[0].open() as stream, tarfile.open(fileobj=stream) as archive:
        member = archive.extractfile("1202/1911.07688.gz")
        assert member is not None
        source = gzip.decompress(member.read()).decode()
    pieces = [source[start : start + 40] for start in range(0, len(source), 40)]
    for _ in range(20):
        index = draw.randrange(len(pieces))
        pieces[index] = draw.choice(
            ["", "{", "}", "\\", "$", "\\begin{x}", "\\fi", "\\def\\a#1{", pieces[draw.randrange(len(pieces))]]
        )
    data = packed(r"\documentclass{article}" + "".join(pieces))
    documents, rejects = read_all([in_memory("1202.0001.gz", data)], corpus("arxiv"))
    assert len(documents) + len(rejects) >= 1


# Text.


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (r"\section{One \emph{two}}\label{s} x", "One two\n\nx"),
        (r"a~b \texttt{c} {\it d} \textbf{e} \mbox{f}", "a b c d e f"),
        (r"Sch\"on, \'etude, \ss, na\"{\i}ve --- ``q''", "Schön, étude, ß, naïve — “q”"),
        (r"$a<b$ and \[x^2\] and \(y\)", "$a<b$ and \n\\[x^2\\]\n and \\(y\\)"),
        (r"\ensuremath{x} $\ensuremath{y}$", "$x$ ${y}$"),
        (
            r"\begin{figure}[t]\includegraphics[width=1cm]{a.eps}\caption{A \emph{plot}.}\label{f}\end{figure}",
            "A plot.",
        ),
        (r"\begin{table}\begin{tabular}[t]{lr}\hline a & b\\ c & d\end{tabular}\end{table}", "a | b\n c | d"),
        (r"\begin{itemize}\item a\item[x] b\end{itemize}", "- a\nx b"),
        (r"x\footnote{n} y\thanks{m}", "x [n] y [m]"),
        (
            r"\cite{a,b} \citep[see][p. 3]{c} \citet[p. 4]{d} \citep[e.g.][]{e}",
            "[a,b] [see c, p. 3] [d, p. 4] [e.g. e]",
        ),
        (r"Fig.~\ref{fig:a_b}, \eqref{e}", "Fig. fig:a_b, (e)"),
        (r"\url{http://a.b/c_d%20e#f} \href{http://x.y}{here}", "http://a.b/c_d%20e#f here <http://x.y>"),
        (
            r"\newtheorem{thm}{Theorem}\begin{thm}[Euler]Words.\end{thm}\begin{thm}More.\end{thm}",
            "Theorem (Euler). Words.\n\nTheorem. More.",
        ),
        (r"\begin{tikzpicture}\draw (0,0);\end{tikzpicture}a\vspace{1cm}\hspace*{2em}b\vskip 3pt plus 1pt c", "abc"),
        (r"\begin{lstlisting}[language=C]" + "\nif (a%2) {\\n}\n" + r"\end{lstlisting}", "if (a%2) {\\n}"),
        (r"\verb+a_%b+ and \verb|\x|", r"a_%b and \x"),
        (r"\begin{abstract}Short.\end{abstract}\today", "Abstract\n\nShort."),
        (r"\multicolumn{2}{c}{x} \textcolor{red}{y} \color{blue}z", "x y z"),
    ],
)
def test_latex_text_constructs_are_readable(body, text):
    assert text_of(body) == text


def test_latex_text_front_matter_of_the_preamble_is_kept():
    text = text_of(
        r"\maketitle Body.", r"\title{A\\ \bf B}\author{C}\author{D \and E}\date{\today}\hypersetup{x=y}\junk{z}"
    )
    assert text == "A\n B\n\nC\n\nD, E\n\nBody."


def test_arxiv_reader_title_is_on_one_line():
    paper = PAPER.replace("On $x$", "On\n  {\\bf the} \\emph{sea}\\\\ of $x$")
    (document,), _ = read_all([in_memory("1202.0001.gz", packed(paper))], corpus("arxiv"))
    assert document.title == "On the sea of $x$"


def test_arxiv_reader_groups_nested_too_deep_are_a_reject():
    data = packed(PAPER.replace("Body", "{" * 5_000 + "x" + "}" * 5_000))
    documents, rejects = read_all([in_memory("1202.0001.gz", data)], corpus("arxiv"))
    assert (documents, reasons(rejects)) == ([], ["unreadable LaTeX"])


# Damage.


def test_arxiv_reader_unsafe_members_are_refused_and_the_paper_kept():
    link = tarfile.TarInfo("l.tex")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    paper = tar_gz({"ms.tex": PAPER, "../up.tex": "x"}, link)
    outer_link = tarfile.TarInfo("1202.0009.gz")
    outer_link.type, outer_link.linkname = tarfile.LNKTYPE, "1202.0001.gz"
    outer = tar({"1202.0001.gz": paper, "../1202.0002.gz": packed(PAPER)}, outer_link)
    documents, rejects = read_all([in_memory("a.tar", outer)], corpus("arxiv"))
    assert [document.id for document in documents] == ["sample:1202.0001"]
    assert reasons(rejects) == ["unsafe archive member"] * 4


@pytest.mark.parametrize("kept", [100, 700, 1_500, 0.5, 0.65])
def test_arxiv_reader_truncated_tar_keeps_what_it_has_and_says_so(kept):
    draw = random.Random(1)
    noise = ["".join(draw.choices("abcdefgh ", k=3_000)) for _ in range(6)]
    data = tar({f"1202.000{n}.gz": packed(PAPER.replace("Body", words)) for n, words in enumerate(noise)})
    end = kept if isinstance(kept, int) else int(len(data) * kept) // 512 * 512 + 100
    documents, rejects = read_all([in_memory("a.tar", data[:end])], corpus("arxiv"))
    assert [document.id for document in documents] == [f"sample:1202.000{n}" for n in range(len(documents))]
    assert [reject.reason for reject in rejects] == ["truncated archive"]
    assert (
        f"after member {len(documents)}" in rejects[0].detail
        or f"after member {len(documents) + 1}" in rejects[0].detail
    )
    if isinstance(kept, float) and kept > 0.4:
        assert documents


def test_arxiv_reader_damaged_paper_is_a_reject_and_the_next_is_read():
    whole = packed(PAPER * 3)
    broken = tar_gz({"ms.tex": PAPER * 3})
    data = {
        "1202.0001.gz": whole[:-20],
        "1202.0002.gz": broken[:-40],
        "1202.0003.gz": b"",
        "1202.0004.gz": whole[:30] + b"\0" * 20 + whole[50:],
        "1202.0005.gz": packed(PAPER),
    }
    documents, rejects = read_all([in_memory("a.tar", tar(data))], corpus("arxiv"))
    assert [document.id for document in documents] == ["sample:1202.0005"]
    assert sorted(reject.id for reject in rejects) == [f"sample:1202.000{n}" for n in (1, 2, 3, 4)]
    assert set(reasons(rejects)) <= {"damaged paper", "no root file"}


@pytest.mark.parametrize("name", ["a.tar", "1202.0001.gz", "1202.0001.tar.gz", "a.tex"])
@pytest.mark.parametrize("data", [b"", b"junk" * 300, b"\x1f\x8b" + b"\0" * 600])
def test_arxiv_reader_file_of_junk_gives_rejects_only(name, data):
    documents, rejects = read_all([in_memory(name, data)], corpus("arxiv"))
    assert documents == []
    assert len(rejects) <= 1


def test_arxiv_reader_gzip_bomb_is_refused():
    zeros = b"\0" * (arxiv_module.MAX_SOURCE_BYTES + 1)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("big.tex")
        info.size = len(zeros)
        archive.addfile(info, io.BytesIO(zeros))
    files = [in_memory("1202.0001.gz", gzip.compress(zeros, 1)), in_memory("1202.0002.gz", stream.getvalue())]
    documents, rejects = read_all(files, corpus("arxiv"))
    assert (documents, reasons(rejects)) == ([], ["too large", "too large"])


def test_arxiv_reader_failing_disk_is_not_taken_for_damage():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    for name in ("a.tar", "1202.0001.gz"):
        with pytest.raises(OSError, match="Input/output"):
            read_all([SourceFile(name, 10, Failing)], corpus("arxiv"))


def test_arxiv_reader_records_are_the_same_each_time(test_data):
    files = list_files(test_data / "corpora" / "arxiv").files
    first, second = (list(read_raw(files, corpus("arxiv"))) for _ in range(2))
    assert first == second
    assert all(isinstance(record, RawDocument) for record, _ in first)
