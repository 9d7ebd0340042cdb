"""The page and the tables of a draw, over nine corpora that are only lengths."""

from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest

from longalign_core.config.selection import SelectionConfig
from longalign_core.corpora.selecting.funnel import (
    LENGTH_EDGES,
    RejectRow,
    count_lengths_by_corpus,
    count_rejects,
    funnels,
)
from longalign_core.corpora.selecting.lengths import DocumentLength
from longalign_core.corpora.selecting.report import SelectionReport
from longalign_core.corpora.selecting.selection import draw
from longalign_core.drawn_tables import drawn_frames, reject_rows
from longalign_core.record_files import write_records
from longalign_core.records import Reject, SourceLicence

NAMES = ("arxiv", "books", "c4", "clue", "commoncrawl", "github", "stackexchange", "wikipedia", "wudao")


class Page(HTMLParser):
    """Text of a page, and every address it would ask for."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.addresses, self.tags = "", [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        asked = [value for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.addresses += [value for value in asked if not value.startswith("#")]

    def handle_data(self, data):
        self.text += data


def report(folder, reason="too short", names=NAMES) -> SelectionReport:
    config = SelectionConfig(tokenizer="t", num_documents=90, chinese_share=0.2)
    lengths = [
        DocumentLength(
            id=f"{name}:{number}", source=name, language="zh" if name in ("clue", "wudao") else "en",
            num_tokens=None if number == 0 else 600 * (number + place), num_bytes=9,
        )
        for place, name in enumerate(names)
        for number in range(60)
    ]  # fmt: skip
    selection = draw(lengths, config)
    write_records(folder / "lengths.parquet", lengths, DocumentLength)
    drawn = [one for one in lengths if one.id in selection.num_tokens]
    write_records(folder / "drawn.parquet", drawn, DocumentLength)
    rejects = [Reject(id="x", source="c4", stage="ingest", reason=reason)] * 3
    rejects += [Reject(id="y", source="books", stage="clean", reason="exact duplicate")]
    write_records(folder / "rejects.parquet", rejects, Reject)
    rows = count_rejects([folder / "rejects.parquet"])
    of_source = selection.by_source
    return SelectionReport(
        selection=selection,
        min_tokens=config.min_tokens,
        max_tokens=config.max_tokens,
        funnels=funnels(
            dict.fromkeys(names, 61),
            rows,
            {name: one.eligible for name, one in of_source.items()},
            {name: one.drawn for name, one in of_source.items()},
        ),
        rejects=rows,
        lengths=count_lengths_by_corpus([folder / "lengths.parquet"], folder / "drawn.parquet"),
        licences=tuple(SourceLicence(source=name, redistributable=name != "clue", records=9) for name in names),
    )


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> str:
    return report(tmp_path_factory.mktemp("report"), reason="<script>alert(1)</script>").as_html()


def test_report_page_stands_alone_and_shows_every_corpus(content):
    page = Page(content)
    assert page.addresses == ["data:,"] and "script" not in page.tags
    assert "http" not in content and "@import" not in content and "url(" not in content.replace("url(#", "")
    assert page.tags.count("svg") == len(NAMES) + 1
    assert all(name in page.text for name in NAMES)
    assert "<script>alert(1)</script>" in page.text
    assert "it holds texts of clue" in page.text


def test_report_twice_gives_the_same_bytes(tmp_path):
    first, second = report(tmp_path, names=NAMES[:2]), report(tmp_path, names=NAMES[:2])
    assert first.as_html() == second.as_html()
    assert first.as_json() == second.as_json()


def test_report_funnel_narrows_and_counts_what_was_left_out(tmp_path):
    by_name = {one.corpus: one for one in report(tmp_path).funnels}
    c4, books = by_name["c4"], by_name["books"]
    assert (c4.read, c4.ingested, c4.kept) == (64, 61, 61)
    assert (books.read, books.ingested, books.kept) == (61, 61, 60)
    assert all(one.read >= one.ingested >= one.kept >= one.eligible >= one.drawn for one in by_name.values())


def test_lengths_by_corpus_equal_counting_one_by_one(tmp_path):
    lengths = report(tmp_path).lengths
    rows = pq.read_table(tmp_path / "lengths.parquet").to_pylist()
    for name in NAMES:
        own = [row["num_tokens"] for row in rows if row["source"] == name and row["num_tokens"] is not None]
        expected = [sum(low <= one < high for one in own) for low, high in zip(LENGTH_EDGES, LENGTH_EDGES[1:])]  # noqa: B905, RUF007
        assert lengths[name].counted.tolist() == expected
        assert np.all(lengths[name].drawn <= lengths[name].counted)
        assert lengths[name].num_not_counted == 1


@pytest.mark.parametrize("group", ["chinese", "other"])
def test_tables_add_up_to_the_draw(tmp_path, group):
    told = report(tmp_path).as_json()
    frame = drawn_frames(told)[group]
    cells = [cell for cell in told["cells"] if cell["group"] == group]
    assert frame.loc["all"].tolist() == [*(cell["drawn"] for cell in cells), sum(cell["drawn"] for cell in cells)]
    assert frame.drop(index=["all", "wanted"]).sum().tolist() == frame.loc["all"].tolist()
    assert frame.loc["wanted", "all"] == {"chinese": 18, "other": 72}[group]


def test_reject_rows_sum_over_corpora():
    rows = [RejectRow(stage="clean", corpus=name, reason="exact duplicate", count=1_000) for name in ("b", "a")]
    told = {"rejects": [{"stage": r.stage, "corpus": r.corpus, "reason": r.reason, "count": r.count} for r in rows]}
    assert reject_rows(told) == [
        {"stage": "clean", "reason": "exact duplicate", "records": 2_000, "corpora": "a 1,000, b 1,000"}
    ]
