from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longalign_core.config.evaluation import ScorecardConfig
from longalign_core.errors import DataError
from longalign_core.record_files import write_records
from longalign_core.records import Answer, Document, Reject, Verdict
from longalign_core.stages.evaluation import scorecard
from tests.evaluation_inputs import runtime

VOID = {"meta", "link", "br", "img", "path", "use", "rect"}


class PageReader(HTMLParser):
    """Collects what a page shows and what it would fetch; notices tags that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.addresses: list[str] = []
        self.pictures: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.balanced = not self._open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[name] for name in ("href", "src", "xlink:href", "action") if given.get(name)]
        self.ids += [given["id"]] if "id" in given else []
        if tag == "svg":
            self.pictures.append(given.get("aria-label", ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def write_suite(folder, name, scores, *, scale=(1, 10), reply="An answer.", attributes=None):
    """One evaluation: question i has one verdict with the i-th score, None meaning unscored."""
    folder.mkdir()
    answers, verdicts = [], []
    for number, score in enumerate(scores):
        given = attributes[number] if attributes else {"query": f"Question {number}?", "reference": "So."}
        answers.append(Answer(question_id=str(number), reply=reply, attributes=given))
        unscored = None if score is not None else "no verdict"
        verdicts.append(
            Verdict(question_id=str(number), repeat=0, score=score, judge="j", reply="hm", unscored=unscored)
        )
    write_records(folder / "answers.parquet", answers, Answer)
    write_records(folder / "verdicts.parquet", verdicts, Verdict)
    description = {
        "schema": 1,
        "kind": "made-up",
        "name": name,
        "scale": {"minimum": scale[0], "maximum": scale[1], "higher_is_better": True},
        "num_questions": len(scores),
        "candidate": {"name": "candidate-0123456789ab", "temperature": 0.0},
        "judge": {"name": "j", "temperature": 0.0},
        "repeats": 1,
        "template_sha256": "ab" * 32,
    }
    (folder / "suite.json").write_text(json.dumps(description))
    return folder


def write_run(folder):
    """Documents, tokens, plan and training of a small run: two packs of 100 tokens, filled to 90 and 60."""
    documents, tokens, plan, train = (folder / name for name in ("documents", "tokens", "plan", "train"))
    for one in (documents, tokens, plan, train):
        one.mkdir()
    drawn = [
        Document(id=str(i), text="x", source="books", language="en", origin="f", sha256="0", num_tokens=50)
        for i in range(3)
    ]
    rejects = [Reject(id=str(i), source="books", stage="select", reason="too short") for i in range(4)]
    write_records(documents / "documents.parquet", drawn, Document)
    write_records(documents / "rejects.parquet", rejects, Reject)
    lengths = [50, 40, 60]
    columns = {"sequence": [0, 1, 2], "conversation_id": list("abc"), "source": ["books"] * 3, "length": lengths}
    write_table(tokens / "sequences.parquet", {**columns, "targets": [5, 4, 6], "cut_tokens": [0, 0, 7]})
    places = {"epoch": [0, 0, 0], "step": [0, 0, 0], "slot": [0, 0, 1], "offset": [0, 50, 0], "sequence": [0, 1, 2]}
    write_table(plan / "plan.parquet", {**places, "length": lengths, "targets": [5, 4, 6]})
    (plan / "plan.json").write_text(json.dumps({"schema": 1, "strategy": "balanced", "capacity": 100}))
    (plan / "report.json").write_text(json.dumps({"idle": {"1": 0.0, "2": 0.125}, "ess": 0.97, "note": ""}))
    steps = {"step": [0, 1, 2], "loss": [3.0, 2.0, 1.5], "seconds": [1.0, 1.0, 1.0], "tokens": [150, 150, 150]}
    write_table(train / "metrics.parquet", steps)
    return {"documents": (documents,), "tokens": (tokens,), "plan": (plan,), "train": (train,)}


def write_table(path, columns):
    pq.write_table(pa.table(columns), path)


def draw_up(folder, inputs, *, gate=None, notice=""):
    out_dir = folder / "out"
    out_dir.mkdir()
    counts = scorecard.function(
        ScorecardConfig(name="made-up", gate=gate, notice=notice), inputs, out_dir, runtime(folder)
    )
    page = PageReader((out_dir / "scorecard.html").read_text())
    return counts, json.loads((out_dir / "scorecard.json").read_text()), page, (out_dir / "scorecard.md").read_text()


def test_scorecard_page_has_every_picture_and_asks_nothing_of_the_network(tmp_path):
    grid = [{"length": length, "depth": depth} for length in (100, 200) for depth in (0.0, 1.0)]
    evaluations = (
        write_suite(tmp_path / "chat", "chat", [7.0, 5.0, None]),
        write_suite(tmp_path / "needle", "needle", [1.0, 0.0, 1.0, None], scale=(0, 1), attributes=grid),
    )
    _, _, page, _ = draw_up(tmp_path, {"evaluations": evaluations, **write_run(tmp_path)})
    assert page.balanced
    assert len(page.pictures) == 5
    for words in ("question scores", "needle retrieval", "training sequences by length", "packs", "Training loss"):
        assert sum(words in picture for picture in page.pictures) == 1
    assert len(page.ids) == len(set(page.ids))
    outside = [address for address in page.addresses if not address.startswith(("#", "data:"))]
    assert outside == []
    content = (tmp_path / "out" / "scorecard.html").read_text()
    assert not re.search(r"https?://|@import|url\((?!#)", content)


def test_scorecard_figures_are_those_of_the_inputs(tmp_path):
    evaluations = (write_suite(tmp_path / "chat", "chat", [8.0, 4.0, None]),)
    counts, card, page, text = draw_up(tmp_path, {"evaluations": evaluations, **write_run(tmp_path)})
    assert counts == {"gate": "none", "suites": 1, "unscored": 1, "mean_chat": 6.0}
    (suite,) = card["suites"]
    assert (suite["mean"], suite["num_scored"], suite["num_unscored"]) == (6.0, 2, 1)
    assert suite["unscored_reasons"] == {"no verdict": 1}
    assert card["packing"]["utilisation"] == pytest.approx(150 / 200)
    assert card["packing"]["num_packs"] == 2
    assert "12.5 % on 2 ranks" in page.text
    assert card["sequences"]["num_tokens"] == 150
    assert card["training"]["last_loss"] == 1.5
    assert card["rejects"] == [{"stage": "select", "reason": "too short", "count": 4}]
    assert card["corpora"] == [{"source": "books", "num_documents": 3, "num_tokens": 150}]
    assert "6.00" in page.text
    assert "1 of 3 unscored" in page.text
    assert "| chat | 6.00 |" in text


def test_scorecard_shows_its_notice_before_the_scores(tmp_path):
    notice = "This proves the plumbing, not the recipe."
    evaluations = (write_suite(tmp_path / "chat", "chat", [8.0, 4.0]),)
    _, card, page, text = draw_up(tmp_path, {"evaluations": evaluations}, notice=notice)
    assert page.text.index(notice) < page.text.index("6.00")
    assert text.index(notice) < text.index("6.00")
    assert card["notice"] == notice


@pytest.mark.parametrize(
    ("scores", "gate", "outcome"),
    [([6.0], 6.0, "passed"), ([6.0], 6.01, "failed"), ([None], 1.0, "failed"), ([6.0], None, "none")],
)
def test_scorecard_gate_is_written_whatever_its_outcome(tmp_path, scores, gate, outcome):
    evaluations = (
        write_suite(tmp_path / "first", "first", scores),
        write_suite(tmp_path / "second", "second", [10.0]),
    )
    counts, card, page, _ = draw_up(tmp_path, {"evaluations": evaluations}, gate=gate)
    assert counts["gate"] == card["gate"]["outcome"] == outcome
    assert ("no gate set" if outcome == "none" else f"gate {outcome}") in page.text


def test_scorecard_without_any_input_is_still_a_page(tmp_path):
    counts, _, page, _ = draw_up(tmp_path, {"evaluations": ()}, gate=5.0)
    assert counts == {"gate": "failed", "suites": 0, "unscored": 0}
    assert page.balanced
    assert page.pictures == []


def test_scorecard_texts_of_models_are_shown_and_not_interpreted(tmp_path):
    reply = "<script>alert(1)</script><img src=http://tracker.example/x> & so on"
    evaluations = (write_suite(tmp_path / "chat", "chat", [8.0, 4.0], reply=reply),)
    _, _, page, _ = draw_up(tmp_path, {"evaluations": evaluations}, notice="<b>bold</b>")
    assert reply in page.text
    assert "<b>bold</b>" in page.text
    assert not any("tracker" in address for address in page.addresses)


def test_scorecard_many_questions_shows_some_from_worst_to_best(tmp_path):
    scores = [float(score) for score in np.random.default_rng(0).permutation(50) % 10 + 1]
    evaluations = (write_suite(tmp_path / "chat", "chat", scores),)
    _, card, page, _ = draw_up(tmp_path, {"evaluations": evaluations})
    assert len(card["suites"][0]["questions"]) == 50
    assert 5 <= page.text.count("An answer.") < 50
    assert "of 50 questions" in page.text


def test_scorecard_damaged_evaluation_is_a_data_error(tmp_path):
    folder = write_suite(tmp_path / "chat", "chat", [8.0])
    (folder / "verdicts.parquet").unlink()
    with pytest.raises(DataError):
        draw_up(tmp_path, {"evaluations": (folder,)})
