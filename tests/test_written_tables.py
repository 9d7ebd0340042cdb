"""What was written, as rows for a terminal and for Prefect."""

from __future__ import annotations

import io
import json

from rich.console import Console

from longalign_core.written_tables import spent_rows, written_rows, written_view

REPORT = {
    "acceptance": {
        "task type": {"general": {"accepted": 3, "rejected": {"empty reply": 1, "refusal": 2}, "share": 0.5}},
        "corpus": {"books": {"accepted": 3, "rejected": {}, "share": 1.0}},
    }
}


def paid(purpose: str, corpus: str, dollars: float | None) -> dict:
    figures = {"calls": 2, "prompt_tokens": 1000, "cached_tokens": 10, "reply_tokens": 5, "dollars": dollars}
    return {"purpose": purpose, "task_type": "general", "corpus": corpus, **figures}


def test_written_rows_count_accepted_and_rejected_with_reasons(tmp_path):
    (tmp_path / "instruct.json").write_text(json.dumps(REPORT))
    assert written_rows(tmp_path) == [
        {"by": "task type", "group": "general", "accepted": 3, "rejected": 3, "reasons": "empty reply 1, refusal 2"},
        {"by": "corpus", "group": "books", "accepted": 3, "rejected": 0, "reasons": ""},
    ]


def test_spent_rows_sum_over_corpora_and_never_sum_up_to_a_price_that_is_unknown(tmp_path):
    rows = [paid("answer", "books", 0.5), paid("answer", "c4", 0.25), paid("questions", "books", None)]
    (tmp_path / "spending.json").write_text(json.dumps({"rows": [*rows, paid("questions", "c4", 1.0)]}))
    answers, questions = spent_rows(tmp_path)
    assert (answers["calls"], answers["prompt tokens"], answers["dollars"]) == (4, 2000, 0.75)
    assert (questions["calls"], questions["dollars"]) == (4, "price unknown")


def test_written_view_of_a_product_that_paid_nothing_is_drawn(tmp_path):
    (tmp_path / "instruct.json").write_text(json.dumps(REPORT))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(written_view(tmp_path))
    shown = console.export_text()
    assert "empty reply 1, refusal 2" in shown
    assert "nothing" in shown
