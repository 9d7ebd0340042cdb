"""The stage through a provider's batches: submitted, collected by later runs, paid once and within the cap."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from longalign_core.chat_client.calls import Api
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.errors import BudgetError, EndpointError, WaitingError
from longalign_core.record_files import write_records
from longalign_core.records import Document
from longalign_core.stage import publishing
from longalign_core.stages.instruct import instruct
from tests.batch_setup import APIS
from tests.fake_batch_bodies import EXPIRED, Refused
from tests.fake_batch_server import FakeBatchServer
from tests.fake_chat_server import FakeChatServer, generic_reply
from tests.fake_replies import turns_of
from tests.instruct_setup import documents_of, product

GENERATOR = ChatModel(model="writer", max_tokens=100, context_tokens=100_000)
CONFIG = InstructConfig(generator=GENERATOR)
PRICES = """
schema: 1
date: 2026-11-22
models:
  writer: {input: 10.0, output: 20.0, batch_input: 5.0, batch_output: 10.0, seen: made up}
  another: {input: 1000.0, output: 2000.0, seen: made up}
"""


@pytest.fixture
def server():
    with FakeBatchServer() as running:
        running.answer = generic_reply
        yield running


def run(
    folder: Path,
    server: FakeBatchServer | str,
    api: Api = "openai",
    config: InstructConfig = CONFIG,
    *,
    num_documents: int = 6,
    address: str = "instruct/one",
    **settings: object,
) -> dict:
    write_records(folder / "selected" / "documents.parquet", documents_of(num_documents), Document)
    (folder / "prices.yaml").write_text(PRICES)
    root = server if isinstance(server, str) else server.root
    url = f"{api}+{root}{'' if api == 'anthropic' else '/v1'}"
    runtime = Runtime(
        scratch=folder / "scratch",
        store=str(folder / "store"),
        endpoints={"generator": url},
        generator_calls="batch",
        prices=folder / "prices.yaml",
        **settings,
    )
    with publishing(None, address):
        return instruct.function(config, {"documents": (folder / "selected",)}, folder / "out", runtime)


def waits(folder: Path, server: FakeBatchServer, *given: object, **named: object) -> str:
    with pytest.raises(WaitingError) as caught:
        run(folder, server, *given, **named)
    return str(caught.value)


def number_in(body: dict) -> int:
    return int(turns_of(body)[0][1].split()[1])


@pytest.mark.parametrize("api", APIS)
def test_instruct_in_batches_takes_three_runs_and_pays_each_call_once(tmp_path, server, api):
    assert "6 tasks wait for model replies: 0 of 6 are there and 1 batch is under way" in waits(tmp_path, server, api)
    # Nothing has ended: nothing new is sent.
    waits(tmp_path, server, api)
    assert len(server.batches) == 1
    server.end_all()
    waits(tmp_path, server, api)
    assert [len(batch.rows) for batch in server.batches] == [6, 6]
    server.end_all()
    counts = run(tmp_path, server, api)
    assert set(server.times_sent.values()) == {1}
    conversations, rejects = product(tmp_path)
    assert (len(conversations), rejects) == (6, [])
    # Seven tokens and three a call, at the prices of batches.
    spent = json.loads((tmp_path / "out" / "spending.json").read_text())
    assert (spent["total"]["calls"], spent["total"]["tokens"], spent["total"]["num_open"]) == (12, 120, 0)
    assert spent["total"]["dollars"] == pytest.approx(12 * (7 * 5 + 3 * 10) / 1e6)
    assert {row["purpose"] for row in spent["rows"]} == {"questions", "answer"}
    assert (counts["paid_calls"], counts["batch_calls"]) == (12, 0)


def test_instruct_in_batches_expired_requests_are_asked_again_alone(tmp_path, server):
    waits(tmp_path, server)
    server.answer = lambda body: EXPIRED if number_in(body) < 2 else generic_reply(body)
    server.end_all("expired")
    waits(tmp_path, server)
    server.answer = generic_reply
    server.end_all()
    waits(tmp_path, server)
    server.end_all()
    run(tmp_path, server)
    assert Counter(server.times_sent.values()) == {1: 10, 2: 2}
    spent = json.loads((tmp_path / "out" / "spending.json").read_text())
    assert (spent["total"]["calls"], spent["total"]["tokens"]) == (12, 120)


def test_instruct_in_batches_rejected_documents_are_replaced_until_the_number_is_there(tmp_path, server):
    config = InstructConfig(generator=GENERATOR, num_conversations=4)
    server.answer = lambda body: (
        Refused(400, {"error": {"message": "unsafe", "type": "invalid_request_error", "code": "content_filter"}})
        if number_in(body) % 3 == 0
        else generic_reply(body)
    )
    for _ in range(10):
        try:
            counts = run(tmp_path, server, config=config, num_documents=12)
            break
        except WaitingError:
            server.end_all()
    assert (counts["conversations"], counts["missing"]) == (4, 0)
    assert set(server.times_sent.values()) == {1}
    conversations, rejects = product(tmp_path)
    assert len(conversations) + len(rejects) == 12
    assert {one.reason for one in rejects} <= {"content filter", "not needed"}


def test_instruct_in_batches_for_two_products_submits_what_they_share_once(tmp_path, server):
    other = InstructConfig(generator=GENERATOR, answer_instructions_en="Name the sentence you rely on.")
    waits(tmp_path, server)
    # The questions are under way for the other product; this one waits for them.
    assert "6 tasks wait" in waits(tmp_path, server, config=other, address="instruct/two", budget_tokens=3_000)
    assert len(server.batches) == 1
    server.end_all()
    # What the first product had set aside comes back to its own cap, not to the second one's.
    waits(tmp_path, server, config=other, address="instruct/two", budget_tokens=3_000)
    server.end_all()
    run(tmp_path, server, config=other, address="instruct/two", budget_tokens=3_000)
    two = json.loads((tmp_path / "out" / "spending.json").read_text())
    assert (two["total"]["calls"], {row["purpose"] for row in two["rows"]}) == (6, {"answer"})
    waits(tmp_path, server)
    server.end_all()
    run(tmp_path, server)
    one = json.loads((tmp_path / "out" / "spending.json").read_text())
    # The two documents in Chinese take no English instructions, so the other product has paid for their answers.
    assert one["total"]["calls"] == 10
    assert set(server.times_sent.values()) == {1}


def test_instruct_in_batches_cap_holds_over_runs_and_submits_what_fits(tmp_path, server):
    with_cap = {"budget_dollars": 0.012}
    waits(tmp_path, server, **with_cap)
    num_first = len(server.batches[0].rows)
    assert 0 < num_first < 6
    waits(tmp_path, server, **with_cap)
    assert len(server.batches) == 1
    # What the replies did not use comes back, and more goes out, until the rest fits.
    for _ in range(10):
        server.end_all()
        try:
            run(tmp_path, server, **with_cap)
            break
        except WaitingError:
            continue
    assert sum(server.times_sent.values()) == 12
    assert set(server.times_sent.values()) == {1}


def test_instruct_in_batches_cap_below_one_call_ends_with_the_cap(tmp_path, server):
    with pytest.raises(BudgetError, match="raise LONGALIGN_BUDGET_TOKENS"):
        run(tmp_path, server, budget_tokens=50)
    assert server.batches == []


def test_instruct_in_batches_another_model_does_not_meddle_with_the_first_ones(tmp_path, server):
    """Their batches are under way at the same time: each is collected at its own price, into its own shelf."""
    another = InstructConfig(generator=ChatModel(model="another", max_tokens=100, context_tokens=100_000))
    waits(tmp_path, server)
    server.end_all()
    # At another provider, which knows nothing of the first one's batches.
    waits(tmp_path, server, "anthropic", config=another, address="instruct/two")
    waits(tmp_path, server)
    server.end_all()
    run(tmp_path, server)
    spent = json.loads((tmp_path / "out" / "spending.json").read_text())
    assert spent["total"]["dollars"] == pytest.approx(12 * (7 * 5 + 3 * 10) / 1e6)


def test_instruct_in_batches_same_model_at_another_provider_is_not_submitted_again(tmp_path, server):
    """It would be paid twice: what is under way is under way, and only the user can give it up."""
    waits(tmp_path, server, "openai")
    with pytest.raises(EndpointError, match=r"does not know the batch.*or remove the folder of batches"):
        run(tmp_path, server, "anthropic")
    assert len(server.batches) == 1
    server.end_all()
    waits(tmp_path, server, "openai")
    server.end_all()
    run(tmp_path, server, "openai")
    assert set(server.times_sent.values()) == {1}


def test_instruct_in_batches_ledger_that_lost_its_last_rows_stops_no_collection(tmp_path, server, caplog):
    """A power cut may take the last seconds of the ledger, which is not forced to the disk; batches go on meanwhile."""
    waits(tmp_path, server)
    server.end_all()
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (tmp_path / "scratch" / "responses" / name).unlink(missing_ok=True)
    waits(tmp_path, server)
    server.end_all()
    counts = run(tmp_path, server)
    assert caplog.text.count("the ledger has lost calls of the generator") == 1
    # What the replies say they used is counted all the same.
    assert (counts["paid_calls"], counts["paid_tokens"]) == (12, 120)


NO_CREDIT = {
    "openai": (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    "anthropic": (400, {"type": "error", "error": {"type": "billing_error", "message": "no credit"}}),
}
KEY_EXPIRED = {
    "openai": (401, {"error": {"message": "expired", "type": "invalid_request_error", "code": "invalid_api_key"}}),
    "anthropic": (401, {"type": "error", "error": {"type": "authentication_error", "message": "expired"}}),
}


@pytest.mark.parametrize("api", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("refusals", "said"), [(NO_CREDIT, "add credit"), (KEY_EXPIRED, "refuses calls without a key")]
)
def test_instruct_in_batches_refused_in_the_middle_spends_and_loses_nothing(
    tmp_path, server, api, refusals, said, monkeypatch
):
    for name in ("LONGALIGN_GENERATOR_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    waits(tmp_path, server, api)
    server.end_all()
    # The questions are collected and kept; the answers find no credit, or no valid key.
    server.refuse_next = [refusals[api]]
    with pytest.raises(EndpointError, match=said):
        run(tmp_path, server, api)
    assert len(server.batches) == 1
    # A cap with room for the answers alone has it: nothing was counted for what was refused.
    waits(tmp_path, server, api, budget_tokens=60 + 6 * 200)
    server.end_all()
    counts = run(tmp_path, server, api, budget_tokens=60 + 6 * 200)
    assert (counts["paid_calls"], counts["paid_tokens"]) == (12, 120)
    assert set(server.times_sent.values()) == {1}


def test_instruct_in_batches_of_an_endpoint_without_them_is_refused(tmp_path):
    with FakeChatServer(generic_reply) as server:
        with pytest.raises(EndpointError, match=r"has no batch interface.*LONGALIGN_GENERATOR_CALLS to online"):
            run(tmp_path, server.url.removesuffix("/v1"))
        assert server.requests == []
