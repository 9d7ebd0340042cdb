"""What is told of a product's spending."""

from __future__ import annotations

import json

import pytest

from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.spending import spending_of, spending_rows, write_spending
from tests.test_ledger import answer, sent


def test_spending_of_a_product_enters_its_counts(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        answer(ledger, sent(ledger))
        answer(ledger, sent(ledger, product="instruct/bb"))
        assert spending_of(ledger, "instruct/aa") == {"dollars": 0.125, "paid_calls": 1, "paid_tokens": 720}
        sent(ledger)
        assert spending_of(ledger, "instruct/aa") == {
            "dollars": 0.625,
            "paid_calls": 2,
            "paid_tokens": 720 + 1600,
            "calls by estimate": 1,
        }
        answer(ledger, sent(ledger, dollars=None), dollars=None)
        assert spending_of(ledger, "instruct/aa")["dollars"] == "price unknown"
        assert spending_of(ledger, "instruct/none") == {"dollars": 0.0, "paid_calls": 0, "paid_tokens": 0}


def test_spending_file_has_sums_by_everything_and_each_adds_up_to_the_total(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for number, corpus in enumerate(("books", "arxiv", "books")):
            purpose = "answer" if number else "questions"
            answer(ledger, sent(ledger, corpus=corpus, purpose=purpose), dollars=0.1 * (number + 1))
        answer(ledger, sent(ledger, product="instruct/bb"))
        write_spending(tmp_path / "spending.json", ledger, "instruct/aa")
    told = json.loads((tmp_path / "spending.json").read_text())
    assert told["total"]["calls"] == 3
    assert {name for name in told if name.startswith("by_")} == {
        "by_role",
        "by_model",
        "by_task_type",
        "by_corpus",
        "by_purpose",
    }
    assert told["by_corpus"]["books"]["dollars"] == pytest.approx(0.4)
    assert told["by_purpose"]["questions"]["tokens"] == 720
    for name, groups in told.items():
        if name.startswith("by_"):
            assert sum(one["dollars"] for one in groups.values()) == pytest.approx(told["total"]["dollars"])
            assert sum(one["tokens"] for one in groups.values()) == told["total"]["tokens"]


def test_spending_rows_come_dearest_first_and_say_what_has_no_price(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        answer(ledger, sent(ledger, model="cheap"), dollars=0.1)
        answer(ledger, sent(ledger, model="dear"), dollars=2.0)
        answer(ledger, sent(ledger, model="unpriced", dollars=None), dollars=None)
        rows = spending_rows(ledger, "model")
        assert [(row["group"], row["dollars"]) for row in rows] == [("dear", 2.0), ("cheap", 0.1), ("unpriced", None)]
