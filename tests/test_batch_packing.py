"""Packing requests into parts: none twice, each part within its limits."""

from __future__ import annotations

import pytest

from longalign_core.chat_client import CallFailedError
from longalign_core.chat_client.batch_packing import PartLimits
from longalign_core.chat_client.batches import BatchClient
from tests.batch_setup import (
    APIS,
    reply_of_words,
    requests,
    submit,
    with_batches,
)
from tests.chat_setup import request_of
from tests.fake_batch_server import FakeBatchServer


@pytest.mark.parametrize("api", APIS)
def test_submit_requests_answered_under_way_or_repeated_are_left_out(api, responses, tmp_path):
    asked = requests(4)
    responses.put(asked[0], reply_of_words("old"))
    with FakeBatchServer() as server:
        assert submit(server, api, responses, tmp_path / "b", [*asked[:3], *asked[:3]]) == 2
        assert submit(server, api, responses, tmp_path / "b", [*asked, *asked]) == 1
        assert server.times_sent == {asked[1].key: 1, asked[2].key: 1, asked[3].key: 1}


@pytest.mark.parametrize("api", APIS)
def test_submit_separates_models_and_keeps_to_the_limits_of_a_part(api, responses, tmp_path):
    asked = [*requests(4), *requests(4, model="n"), *(request_of("長" * 450 + str(number)) for number in range(3))]
    limits = PartLimits(max_requests=3, max_bytes=4000)
    with FakeBatchServer() as server:
        assert submit(server, api, responses, tmp_path / "b", asked, part_limits=limits) == 11
        assert all(len(content) <= 4000 for content in server.uploads)
        assert max(len(batch.rows) for batch in server.batches) == 3
        models = [{row["model"] for row in batch.rows.values()} for batch in server.batches]
        assert all(len(of_batch) == 1 for of_batch in models)
        assert set(server.times_sent.values()) == {1}
        assert len(server.times_sent) == 11


def test_submit_tokens_of_a_part_stay_within_the_limit(responses, tmp_path):
    asked = [request_of(f"{number}" + "word " * 60) for number in range(10)]  # About 100 tokens each.
    with FakeBatchServer() as server:
        submit(server, "openai", responses, tmp_path / "b", asked, part_limits=PartLimits(max_tokens=350))
        assert [len(batch.rows) for batch in server.batches] == [3, 3, 3, 1]


def test_submit_request_larger_than_any_part_is_given_up_and_not_sent(responses, tmp_path):
    async def work(client: BatchClient) -> None:
        large = request_of("word " * 200)
        assert await client.submit([large]) == 0
        with pytest.raises(CallFailedError, match="prompt too long"):
            client.answer(large)

    with FakeBatchServer() as server:
        limits = PartLimits(max_bytes=500)
        with_batches(server.root, "openai", responses, tmp_path / "b", work, part_limits=limits)
        assert server.batches == []
