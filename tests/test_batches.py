"""The client of batches from end to end, through both providers' SDKs."""

from __future__ import annotations

import json

import pytest

from longalign_core.chat_client import CallFailedError
from longalign_core.chat_client.batches import BatchClient, Collected
from longalign_core.errors import BudgetError, StoreError
from tests.batch_setup import (
    APIS,
    Purse,
    collect,
    endpoint_of,
    part_files,
    requests,
    submit,
    with_batches,
)
from tests.chat_setup import FastClock
from tests.fake_batch_server import EXPIRED, FakeBatchServer, words_of


@pytest.mark.parametrize("api", APIS)
def test_submit_then_collect_in_a_later_run_stores_every_reply_at_batch_prices(api, responses, tmp_path):
    asked, purse = requests(5), Purse()
    with FakeBatchServer() as server:
        assert submit(server, api, responses, tmp_path / "b", asked, spending=purse) == 5
        running = collect(server, api, responses, tmp_path / "b", spending=purse)
        assert (running.num_stored, running.num_pending, running.num_batches) == (0, 5, 1)
        server.end_all()
        ended = collect(server, api, responses, tmp_path / "b", spending=purse)
    assert (ended.num_stored, ended.num_pending, ended.num_batches, ended.failures) == (5, 0, 0, {})
    replies = [responses.get(request.key) for request in asked]
    assert [reply.text for reply in replies] == [f"reply to words {number}" for number in range(5)]
    assert {(reply.prompt_tokens, reply.reply_tokens) for reply in replies} == {(7, 3)}
    assert set(purse.told.values()) == {"settled at 3, batch True"}
    assert part_files(tmp_path / "b") == []


def test_submit_line_is_what_a_single_call_sends(responses, tmp_path):
    (asked,) = requests(1, seed=3)
    with FakeBatchServer() as server:
        submit(server, "openai", responses, tmp_path / "b", [asked])
        submit(server, "anthropic", responses, tmp_path / "c", [asked])
        of_openai, of_anthropic = server.uploads
    row = json.loads(of_openai)
    assert (row["custom_id"], row["method"], row["url"]) == (asked.key, "POST", "/v1/chat/completions")
    assert row["body"]["messages"] == [{"role": "user", "content": "words 0"}]
    assert (row["body"]["seed"], row["body"]["max_completion_tokens"]) == (3, 16)
    (entry,) = json.loads(of_anthropic)["requests"]
    assert entry["custom_id"] == asked.key
    assert (entry["params"]["max_tokens"], words_of(entry["params"])) == (16, "words 0")


def test_answer_request_given_up_tells_why(responses, tmp_path):
    (asked,) = requests(1)
    with FakeBatchServer() as server:
        server.at_once = True
        server.answer = lambda body: EXPIRED

        async def work(client: BatchClient) -> None:
            for _ in range(3):
                await client.submit([asked])
                await client.collect()
            with pytest.raises(CallFailedError, match="batch expired") as given_up:
                client.answer(asked)
            assert given_up.value.passing

        with_batches(server.root, "openai", responses, tmp_path / "b", work)


def test_submit_budget_reached_submits_what_was_admitted(responses, tmp_path):
    purse = Purse(num_allowed=3)
    with FakeBatchServer() as server:
        with pytest.raises(BudgetError):
            submit(server, "openai", responses, tmp_path / "b", requests(5), spending=purse)
        assert len(server.times_sent) == 3


def test_wait_polls_at_growing_intervals_until_all_ended(responses, tmp_path):
    clock = FastClock()

    async def work(client: BatchClient) -> tuple[Collected, Collected]:
        await client.submit(requests(2))
        still = await client.wait(100)
        server.end_all()
        return still, await client.wait(100)

    with FakeBatchServer() as server:
        still, ended = with_batches(server.root, "openai", responses, tmp_path / "b", work, clock=clock)
    assert (still.num_pending, ended.num_pending, ended.num_stored) == (2, 0, 2)
    assert clock.waits == [10, 20, 40, 30]


@pytest.mark.parametrize("api", APIS)
def test_open_folder_in_use_is_refused(api, responses, tmp_path):
    async def work(client: BatchClient) -> None:
        async with BatchClient(endpoint_of(server.root, api), responses, tmp_path / "b", timeout_seconds=1):
            pass

    with FakeBatchServer() as server, pytest.raises(StoreError, match="another process uses the batches"):
        with_batches(server.root, api, responses, tmp_path / "b", work)


@pytest.mark.parametrize("api", APIS)
def test_key_is_sent_and_written_to_no_file(api, responses, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", "secret-of-the-test")
    with FakeBatchServer() as server:
        submit(server, api, responses, tmp_path / "b", requests(2))
        assert all("secret-of-the-test" in str(headers) for headers in server.headers)
        files = [path.read_bytes() for path in (tmp_path / "b").iterdir()]
    assert files
    assert not any(b"secret-of-the-test" in content for content in files)
