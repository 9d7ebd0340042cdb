"""Exactly N conversations, types by their shares in every stratum, on any machine, within the budget."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.errors import BudgetError, InputError
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Document, Reject
from longalign_core.stages.instruct import instruct
from tests.fake_chat_server import FakeChatServer, Fault, completion, generic_reply
from tests.instruct_setup import document_of, is_answer_call, number_in

GENERATOR = ChatModel(model="writer", max_tokens=100, context_tokens=100_000)
EDGES = (1_000, 5_000)


def name_of(number: int) -> str:
    return f"{'books' if number % 2 else 'arxiv'}/{number}"


def selected(folder: Path, number: int) -> None:
    """Two corpora, two length ranges, as `select` leaves them."""
    documents = [
        document_of(
            f"{'books' if n % 2 else 'arxiv'}/{n}", f"Document {n} tells of {n}. " * 3, num_tokens=EDGES[n % 4 // 2] + n
        )
        for n in range(number)
    ]
    write_records(folder / "selected" / "documents.parquet", documents, Document)
    cells = [{"min_tokens": edge, "max_tokens": edge + 3_999} for edge in EDGES]
    (folder / "selected" / "selection.json").write_text(json.dumps({"cells": cells}))


def run(folder: Path, url: str, config: InstructConfig, scratch: str = "scratch", **settings: object) -> dict:
    runtime = Runtime(scratch=folder / scratch, store=str(folder / "store"), endpoints={"generator": url}, **settings)
    return instruct.function(config, {"documents": (folder / "selected",)}, folder / "out", runtime)


def product(folder: Path) -> tuple[list[Conversation], list[Reject]]:
    return (
        list(read_records(folder / "out" / "conversations.parquet", Conversation)),
        list(read_records(folder / "out" / "rejects.parquet", Reject)),
    )


def test_instruct_exact_number_is_reached_with_types_even_in_every_corpus_and_length(tmp_path):
    selected(tmp_path, 80)

    def respond(body: dict) -> str | Fault:
        if number_in(body) % 10 == 3:
            return "I'm sorry, but I can't do that."
        return generic_reply(body)

    with FakeChatServer(respond) as server:
        counts = run(tmp_path, server.url, InstructConfig(generator=GENERATOR, num_conversations=48))
        asked = {number_in(body) for body in server.requests}
    conversations, rejects = product(tmp_path)
    assert counts["conversations"] == len(conversations) == 48
    assert counts["missing"] == 0
    by_cell = Counter((one.source, int(one.id.split("/")[1]) % 4 // 2, one.task_type) for one in conversations)
    assert set(by_cell.values()) == {3}
    assert len(by_cell) == 16
    # Every document is accounted for, and only those that were needed were asked about.
    assert sorted([one.id for one in conversations] + [one.id for one in rejects]) == sorted(map(name_of, range(80)))
    reasons = Counter(one.reason for one in rejects)
    assert set(reasons) == {"refusal", "not needed"}
    assert len(asked) == 48 + reasons["refusal"]
    told = json.loads((tmp_path / "out" / "instruct.json").read_text())
    assert told["shortfalls"] == []
    assert told["wanted"] == 48


def test_instruct_documents_that_run_out_are_told_as_missing(tmp_path):
    selected(tmp_path, 12)
    with FakeChatServer(lambda body: "Nothing to ask.") as server:
        counts = run(tmp_path, server.url, InstructConfig(generator=GENERATOR, num_conversations=10))
    assert (counts["conversations"], counts["missing"], counts["rejects"]) == (0, 10, 12)


def test_instruct_other_answer_instructions_ask_no_question_again(tmp_path):
    selected(tmp_path, 8)
    with FakeChatServer(generic_reply) as server:
        run(tmp_path, server.url, InstructConfig(generator=GENERATOR))
        num_asked = len(server.requests)
        config = InstructConfig(generator=GENERATOR, answer_instructions_en="Name the sentence you rely on.")
        counts = run(tmp_path, server.url, config)
        new = [body["messages"][0]["content"] for body in server.requests[num_asked:]]
    assert len(new) == 8
    assert all(words.endswith("Name the sentence you rely on.") for words in new)
    assert (counts["calls"], counts["stored_calls"]) == (8, 8)
    assert not any("Name the sentence" in one.messages[0].content for one in product(tmp_path)[0])


def test_instruct_on_a_new_machine_repeats_no_call_and_draws_the_same(tmp_path):
    selected(tmp_path, 12)
    config = InstructConfig(generator=GENERATOR)
    with FakeChatServer(generic_reply) as server:
        run(tmp_path, server.url, config)
        first = product(tmp_path)
        num_asked = len(server.requests)
        counts = run(tmp_path, server.url, config, scratch="another machine")
        assert len(server.requests) == num_asked
    assert product(tmp_path) == first
    assert (counts["calls"], counts["stored_calls"]) == (0, 24)


def test_instruct_cap_in_tokens_stops_between_calls_and_is_kept_over_runs(tmp_path):
    selected(tmp_path, 20)
    config = InstructConfig(generator=GENERATOR)
    usage = {"prompt_tokens": 150, "completion_tokens": 20, "total_tokens": 170}

    def respond(body: dict) -> Fault:
        return Fault(status=200, body=completion(generic_reply(body), body=body, usage=usage))

    with FakeChatServer(respond) as server:
        for _ in range(2):
            with pytest.raises(BudgetError, match="LONGALIGN_BUDGET_TOKENS"):
                run(tmp_path, server.url, config, budget_tokens=4_200, max_in_flight=4)
            assert len(server.requests) * 170 <= 4_200
            assert len(server.requests) * 170 > 4_200 - 500
        counts = run(tmp_path, server.url, config)
        assert len(server.requests) == 40
    assert counts["paid_calls"] == 40
    assert counts["paid_tokens"] == 40 * 170


def test_instruct_cap_in_dollars_without_a_price_is_refused_before_a_call(tmp_path):
    selected(tmp_path, 4)
    with FakeChatServer(generic_reply) as server:
        with pytest.raises(InputError, match="writer"):
            run(tmp_path, server.url, InstructConfig(generator=GENERATOR), budget_dollars=5.0)
        assert server.requests == []


def test_instruct_window_smaller_than_every_document_is_refused_before_a_call(tmp_path):
    selected(tmp_path, 4)
    small = ChatModel(model="writer", max_tokens=100, context_tokens=900)
    with FakeChatServer(generic_reply) as server:
        with pytest.raises(InputError, match="none of the 4 documents fits the generator's window of 900 tokens"):
            run(tmp_path, server.url, InstructConfig(generator=small))
        assert server.requests == []


def test_instruct_product_has_report_card_and_spending(tmp_path):
    selected(tmp_path, 8)
    with FakeChatServer(generic_reply) as server:
        run(tmp_path, server.url, InstructConfig(generator=GENERATOR))
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "conversations.parquet", "conversations.jsonl", "rejects.parquet", "licences.json", "instruct.json",
        "report.html", "README.md", "spending.json",
    }  # fmt: skip
    spent = json.loads((tmp_path / "out" / "spending.json").read_text())
    assert spent["total"]["calls"] == 16
    assert {(row["purpose"], row["corpus"]) for row in spent["rows"]} == {
        (purpose, corpus) for purpose in ("questions", "answer") for corpus in ("arxiv", "books")
    }
    row = json.loads((tmp_path / "out" / "conversations.jsonl").read_text().splitlines()[0])
    assert set(row) == {"messages", "id", "document_id", "task_type", "model", "usage", "licence"}
    assert row["usage"]["calls"] == 2
    assert row["licence"] == "CC0-1.0"
    assert not is_answer_call({"messages": [{"content": row["messages"][1]["content"]}]})
