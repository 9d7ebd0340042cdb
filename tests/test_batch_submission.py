"""Submitting parts: refused, lost on the way, found again, left for later."""

from __future__ import annotations

import pytest

from longalign_core.chat_client.batches import BatchClient
from longalign_core.errors import EndpointError
from tests.batch_setup import (
    APIS,
    Purse,
    collect,
    requests,
    submit,
    with_batches,
)
from tests.chat_setup import request_of
from tests.fake_batch_server import FakeBatchServer


def test_submit_more_tokens_than_may_wait_is_packed_smaller_and_one_after_the_other(responses, tmp_path):
    asked = [request_of(f"{number}" + "word " * 60) for number in range(6)]  # About 100 tokens each.
    told = "Enqueued token limit reached for m in organization o. Limit: 250 enqueued tokens. Please try again later."

    async def work(client: BatchClient) -> None:
        await client.submit(asked)
        server.fail_all("token_limit_exceeded", told)
        assert (await client.collect()).num_pending == 0
        assert await client.submit(asked) == 6
        # Two fit beside nothing; the others wait here, and go as the ones before them end.
        assert [len(batch.rows) for batch in server.batches[1:]] == [2]
        assert (await client.collect()).num_pending == 6
        for num_sent in (2, 3, 3):
            server.end_all()
            await client.collect()
            assert len(server.batches) - 1 == num_sent

    with FakeBatchServer() as server:
        with_batches(server.root, "openai", responses, tmp_path / "b", work)
        assert set(server.times_sent.values()) == {1}
    assert all(responses.get(request.key) for request in asked)


def test_submit_refused_for_tokens_waiting_leaves_the_part_for_later(responses, tmp_path):
    body = {"error": {"code": "token_limit_exceeded", "message": "Enqueued token limit reached. Limit: 1,000,000"}}

    async def work(client: BatchClient) -> None:
        server.refuse_next = [(429, body)]
        await client.submit(requests(3))
        assert client.num_submitted == 0
        assert (await client.collect()).num_pending == 3
        assert client.num_submitted == 3

    with FakeBatchServer() as server:
        with_batches(server.root, "openai", responses, tmp_path / "b", work)


@pytest.mark.parametrize("api", APIS)
def test_submit_accepted_but_connection_lost_is_found_and_not_submitted_twice(api, responses, tmp_path):
    asked = requests(3)
    with FakeBatchServer() as server:
        server.at_once = True
        server.page = 2
        for number in range(5):  # Others' batches, on several pages of the list.
            submit(server, api, responses, tmp_path / f"other {number}", [request_of(f"other {number}")])
        server.take_and_break = 1
        submit(server, api, responses, tmp_path / "b", asked)
        assert collect(server, api, responses, tmp_path / "b").num_stored == 3
        assert set(server.times_sent.values()) == {1}


def test_submit_anthropic_lost_batch_still_running_is_left_until_it_tells_whose_it_is(responses, tmp_path, caplog):
    asked, strangers = requests(3), [request_of(f"stranger {number}") for number in range(3)]
    with FakeBatchServer() as server:
        server.take_and_break = 1
        submit(server, "anthropic", responses, tmp_path / "b", asked)
        submit(server, "anthropic", responses, tmp_path / "c", strangers)
        assert "cannot be told" in caplog.text
        assert submit(server, "anthropic", responses, tmp_path / "b", asked) == 0
        assert collect(server, "anthropic", responses, tmp_path / "b").num_pending == 3
        server.end_all()
        assert collect(server, "anthropic", responses, tmp_path / "b").num_stored == 3
        assert set(server.times_sent.values()) == {1}


def test_submit_anthropic_batch_of_a_stranger_with_as_many_requests_is_not_taken_for_ours(responses, tmp_path):
    asked = requests(3)
    with FakeBatchServer() as server:
        # Our submission is lost on its way; at that moment another process of the account makes a batch.
        server.drop_next = 1
        server.when_dropped = lambda: server.add_ended("anthropic", {f"stranger-{number}": "m" for number in range(3)})
        submit(server, "anthropic", responses, tmp_path / "b", asked)
        assert [batch.status for batch in server.batches] == ["ended", "in_progress"]
        server.end_all()
        assert collect(server, "anthropic", responses, tmp_path / "b").num_stored == 3


@pytest.mark.parametrize("api", APIS)
def test_submit_busy_server_is_tried_again(api, responses, tmp_path):
    with FakeBatchServer() as server:
        server.refuse_next = [(503, {"error": {"message": "busy"}}), (429, {"error": {"message": "slow down"}})]
        submit(server, api, responses, tmp_path / "b", requests(2))
        assert [len(batch.rows) for batch in server.batches] == [2]


@pytest.mark.parametrize("api", APIS)
def test_submit_refused_request_body_stops_and_keeps_nothing_under_way(api, responses, tmp_path):
    purse = Purse()
    with FakeBatchServer() as server:
        server.refuse_next = [(400, {"error": {"message": "requests.0: no", "type": "invalid_request_error"}})]
        with pytest.raises(EndpointError, match=r"refused a batch of 2 requests \(request refused"):
            submit(server, api, responses, tmp_path / "b", requests(2), spending=purse)
        assert collect(server, api, responses, tmp_path / "b", spending=purse).num_pending == 0
    assert set(purse.told.values()) == {"abandoned, sent False"}


@pytest.mark.parametrize("api", APIS)
def test_check_endpoint_without_batches_says_what_to_set(api, responses, tmp_path):
    from tests.fake_chat_server import FakeChatServer

    with FakeBatchServer() as server:
        with_batches(server.root, api, responses, tmp_path / "a", lambda client: client.check("m"))
        assert server.batches == []
    with FakeChatServer(lambda body: "hi", models=["m"]) as server, pytest.raises(EndpointError, match="online"):
        with_batches(server.url.removesuffix("/v1"), api, responses, tmp_path / "b", lambda client: client.check("m"))
