"""The stage through batches with a judge of its answers, who is asked online meanwhile and out of the same budget."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.quality import GroundingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import BudgetError, WaitingError
from longalign_core.record_files import write_records
from longalign_core.records import Document
from longalign_core.stage import publishing
from longalign_core.stages.instruct import instruct
from tests.fake_batch_bodies import EXPIRED
from tests.fake_batch_server import FakeBatchServer
from tests.fake_chat_server import FakeChatServer, generic_reply
from tests.instruct_setup import documents_of, product
from tests.test_stage_instruct_batches import number_in

GENERATOR = ChatModel(model="writer", max_tokens=1_000, context_tokens=100_000)


def config_of(judge_tokens: int, **changes: object) -> InstructConfig:
    judge = ChatModel(model="judge", max_tokens=judge_tokens, context_tokens=100_000)
    return InstructConfig(generator=GENERATOR, grounding=GroundingConfig(judge=judge, **changes))


def run(
    folder: Path, server: FakeBatchServer, judge: FakeChatServer, config: InstructConfig, **settings: object
) -> dict:
    write_records(folder / "selected" / "documents.parquet", documents_of(6), Document)
    runtime = Runtime(
        scratch=folder / "scratch",
        store=str(folder / "store"),
        endpoints={"generator": f"openai+{server.root}/v1", "judge": judge.url},
        generator_calls="batch",
        **settings,
    )
    with publishing(None, "instruct/one"):
        return instruct.function(config, {"documents": (folder / "selected",)}, folder / "out", runtime)


class LateQuestions:
    """Requests about the first three documents expire once; so these are asked about while the others are judged."""

    def __init__(self) -> None:
        self.expired: set[int] = set()

    def __call__(self, body: dict) -> str:
        number = number_in(body)
        if number < 3 and number not in self.expired:
            self.expired.add(number)
            return EXPIRED
        return generic_reply(body)


def test_instruct_in_batches_judge_is_asked_about_many_documents_at_once(tmp_path):
    together = threading.Barrier(6)

    def support(body: dict) -> str:
        try:
            together.wait(timeout=20)
        except threading.BrokenBarrierError:
            return "They came one after the other."
        return "[[3/3]]"

    with FakeBatchServer() as server, FakeChatServer(support) as judge:
        server.answer, server.at_once = generic_reply, True
        counts = run(tmp_path, server, judge, config_of(100))
        assert (judge.peak_in_flight, len(judge.requests)) == (6, 6)
        assert Counter(server.times_sent.values()) == {1: 12}
    conversations, rejects = product(tmp_path)
    assert (len(conversations), rejects) == (6, [])
    assert (counts["batch_calls"], counts["calls"], counts["paid_calls"]) == (12, 6, 18)


def test_instruct_in_batches_judge_refused_by_the_budget_is_asked_once_batches_gave_money_back(tmp_path):
    """A judge's call fits only while no three requests to the generator are under way."""
    with FakeBatchServer() as server, FakeChatServer(lambda body: "[[3/3]]") as judge:
        server.answer, server.at_once = LateQuestions(), True
        run(tmp_path, server, judge, config_of(5_200), budget_tokens=8_000)
        assert len(judge.requests) == 6
        assert Counter(server.times_sent.values()) == {1: 9, 2: 3}
    conversations, rejects = product(tmp_path)
    assert (len(conversations), rejects) == (6, [])
    spent = json.loads((tmp_path / "out" / "spending.json").read_text())
    assert (spent["total"]["calls"], spent["total"]["num_open"]) == (18, 0)


def test_instruct_in_batches_judge_refused_by_the_budget_ends_as_waiting_and_at_last_with_the_cap(tmp_path):
    config = config_of(20_000)
    with FakeBatchServer() as server, FakeChatServer(lambda body: "[[3/3]]") as judge:
        server.answer = LateQuestions()
        for num_batches in (1, 2, 3):  # questions; three answers, three questions; three answers
            with pytest.raises(WaitingError):
                run(tmp_path, server, judge, config, budget_tokens=15_000)
            assert len(server.batches) == num_batches
            server.end_all()
        with pytest.raises(BudgetError, match="raise LONGALIGN_BUDGET_TOKENS"):
            run(tmp_path, server, judge, config, budget_tokens=15_000)
        assert judge.requests == []
        run(tmp_path, server, judge, config, budget_tokens=150_000)
        assert Counter(server.times_sent.values()) == {1: 9, 2: 3}
    conversations, _ = product(tmp_path)
    assert len(conversations) == 6


def test_instruct_in_batches_places_of_answers_that_the_judge_rejects_are_filled(tmp_path):
    """By further documents in the same run, each asked about once."""
    config = config_of(100).model_copy(update={"num_conversations": 3})
    rejected: list[str] = []
    lock = threading.Lock()

    def support(body: dict) -> str:
        with lock:
            if len(rejected) < 2:
                rejected.append("one")
                return "[[0/3]]"
        return "[[3/3]]"

    with FakeBatchServer() as server, FakeChatServer(support) as judge:
        server.answer, server.at_once = generic_reply, True
        counts = run(tmp_path, server, judge, config)
        assert (len(judge.requests), Counter(server.times_sent.values())) == (5, {1: 10})
    assert (counts["conversations"], counts["missing"]) == (3, 0)
    _, rejects = product(tmp_path)
    assert Counter(one.reason for one in rejects) == {"unsupported answer": 2, "not needed": 1}
