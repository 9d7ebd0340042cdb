"""The ledger: rows outlive a SIGKILL, and its sums are those of its rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from longalign_core.chat_client.ledger import Ledger
from longalign_core.errors import StoreError

KILLED = """
import os, signal, sys
from pathlib import Path
from longalign_core.chat_client.ledger import Ledger
from tests.test_ledger import answer, sent

ledger = Ledger(Path(sys.argv[1]))
answer(ledger, sent(ledger))
sent(ledger)
sent(ledger, batch=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def sent(ledger: Ledger, **changes: object) -> str:
    values = {
        "product": "instruct/aa",
        "role": "generator",
        "model": "m",
        "purpose": "questions",
        "task_type": "summary",
        "corpus": "books",
        "batch": False,
        "prompt_bytes": 3000,
        "prompt_tokens": 1500,
        "reply_tokens": 100,
        "dollars": 0.5,
        "price_date": "2026-01-31",
        **changes,
    }
    return ledger.open_ticket(**values)


def answer(ledger: Ledger, ticket: str, **changes: object) -> None:
    values = {
        "prompt_tokens": 700,
        "cached_tokens": 600,
        "cache_write_tokens": 50,
        "reply_tokens": 20,
        "estimated": False,
        "dollars": 0.125,
        "price_date": "2026-01-31",
        **changes,
    }
    ledger.answer(ticket, **values)


def test_ledger_rows_of_a_process_that_is_killed_are_there_and_count_by_estimate(tmp_path):
    path = tmp_path / "ledger.sqlite"
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env={**os.environ, "PYTHONPATH": root}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with Ledger(path) as ledger:
        spent = ledger.spent("instruct/aa")
        assert (spent.calls, spent.num_open, spent.num_estimated) == (3, 2, 2)
        assert spent.dollars == pytest.approx(0.125 + 2 * 0.5)
        assert spent.tokens == 720 + 2 * 1600
        # A new run gives up what was under way, except in batches, where it goes on at the provider.
        assert ledger.close_killed("instruct/aa") == 1
        assert ledger.spent("instruct/aa") == spent
        (batched,) = ledger.sent("instruct/aa", batch=True)
        assert ledger.sent("instruct/aa", batch=False) == []
        answer(ledger, batched.id)
        assert ledger.spent("instruct/aa").dollars == pytest.approx(2 * 0.125 + 0.5)


def test_ledger_opened_twice_does_not_give_up_calls_that_are_under_way_here(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as first, Ledger(tmp_path / "ledger.sqlite") as second:
        ticket = sent(first)
        assert second.close_killed("instruct/aa") == 0
        answer(first, ticket)
        assert second.spent().dollars == 0.125


def test_ledger_abandoned_ticket_costs_nothing_unless_it_may_have_been_paid(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.abandon(sent(ledger), paid_unknown=False)
        assert ledger.spent().calls == 0
        ledger.abandon(sent(ledger), paid_unknown=True)
        assert (ledger.spent().calls, ledger.spent().dollars) == (1, 0.5)


def test_ledger_settled_ticket_is_not_settled_again(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ticket = sent(ledger)
        answer(ledger, ticket)
        answer(ledger, ticket, dollars=9.0)
        ledger.abandon(ticket, paid_unknown=True)
        row = ledger.find(ticket)
        assert row is not None
        assert (row.state, row.dollars, row.estimated) == ("answered", 0.125, False)


def test_ledger_sums_by_each_grouping_are_those_of_its_rows(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for corpus, task_type in (("books", "summary"), ("books", "general"), ("arxiv", "general")):
            answer(ledger, sent(ledger, corpus=corpus, task_type=task_type))
        answer(ledger, sent(ledger, product="evaluate/bb", role="judge", dollars=None), dollars=None)
        by_corpus = ledger.sums(["corpus"], "instruct/aa")
        assert {key: one.calls for key, one in by_corpus.items()} == {("arxiv",): 1, ("books",): 2}
        by_both = ledger.sums(["task_type", "corpus"], "instruct/aa")
        assert list(by_both) == [("general", "arxiv"), ("general", "books"), ("summary", "books")]
        by_stage = ledger.sums(["stage"])
        assert by_stage["instruct",].dollars == pytest.approx(0.375)
        assert (by_stage["evaluate",].dollars, by_stage["evaluate",].num_unpriced) == (0.0, 1)
        assert ledger.spent("instruct/none").calls == 0


def test_ledger_segments_hold_every_settled_ticket_once_and_merge_twice_to_the_same(tmp_path):
    with Ledger(tmp_path / "here.sqlite") as here, Ledger(tmp_path / "there.sqlite") as there:
        for _ in range(3):
            answer(here, sent(here))
        open_one = sent(here)
        first = here.unarchived(2)
        here.mark_archived([number for number, _ in first])
        rest = here.unarchived(10)
        assert (len(first), len(rest)) == (2, 1)
        rows = [row for _, row in (*first, *rest)]
        there.merge(rows)
        there.merge(rows)
        assert there.spent().calls == 3
        assert there.unarchived(10) == []
        assert there.find(rows[0]["id"]) == here.find(rows[0]["id"])
        here.mark_archived([number for number, _ in rest])
        assert here.unarchived(10) == []
        answer(here, open_one)
        assert [row["id"] for _, row in here.unarchived(10)] == [open_one]


def test_ledger_that_is_no_database_says_so(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("not a database, but long enough to be looked at as one " * 20)
    with pytest.raises(StoreError, match=r"the stored tickets of model calls .* cannot be used"):
        Ledger(path)
