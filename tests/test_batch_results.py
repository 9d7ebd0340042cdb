"""Results of batches: whole, partial, expired, failed, damaged, cut short."""

from __future__ import annotations

import pytest

from longalign_core.chat_client import CallFailedError, ChatReply
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
from tests.fake_batch_server import CANCELLED, EXPIRED, LOST, FakeBatchServer, Refused, words_of


@pytest.mark.parametrize("api", APIS)
def test_collect_line_separators_inside_replies_break_no_line(api, responses, tmp_path):
    (asked,) = requests(1)
    with FakeBatchServer() as server:
        server.answer = lambda body: "one\u2028two\x85three\r\nfour"
        submit(server, api, responses, tmp_path / "b", [asked])
        server.end_all()
        collect(server, api, responses, tmp_path / "b")
    assert responses.get(asked.key).text == "one\u2028two\x85three\r\nfour"


@pytest.mark.parametrize("api", APIS)
def test_collect_expired_batch_keeps_what_came_and_the_rest_is_submitted_again(api, responses, tmp_path):
    asked, purse = requests(4), Purse()
    late = {"words 1", "words 3"}
    with FakeBatchServer() as server:
        server.answer = lambda body: EXPIRED if words_of(body) in late else "in time"
        submit(server, api, responses, tmp_path / "b", asked, spending=purse)
        server.end_all("expired")
        partial = collect(server, api, responses, tmp_path / "b", spending=purse)
        assert partial.num_stored == 2
        assert {str(failure.reason) for failure in partial.failures.values()} == {"batch expired"}
        assert {key: failure.passing for key, failure in partial.failures.items()} == {
            asked[1].key: True,
            asked[3].key: True,
        }
        # What the provider did not work on is not charged.
        assert sorted(purse.told.values()).count("abandoned, sent False") == 2
        server.answer = lambda body: "second time"
        assert submit(server, api, responses, tmp_path / "b", asked, spending=purse) == 2
        server.end_all()
        collect(server, api, responses, tmp_path / "b", spending=purse)
    assert [responses.get(request.key).text for request in asked] == ["in time", "second time"] * 2


@pytest.mark.parametrize("api", APIS)
def test_collect_request_that_expires_again_and_again_is_given_up_until_the_next_run(api, responses, tmp_path):
    (asked,) = requests(1)
    with FakeBatchServer() as server:
        server.answer = lambda body: CANCELLED

        async def work(client: BatchClient) -> int:
            for number in range(10):
                if not await client.submit([asked]):
                    return number
                server.end_all("cancelled")
                await client.collect()
            return 10

        async def reason(client: BatchClient) -> CallFailedError | ChatReply | None:
            assert await client.submit([asked]) == 1
            return client.answer(asked)

        assert with_batches(server.root, api, responses, tmp_path / "b", work) == 3
        assert with_batches(server.root, api, responses, tmp_path / "b", reason) is None


@pytest.mark.parametrize("api", APIS)
def test_collect_errors_of_single_requests_mean_what_they_mean_online(api, responses, tmp_path):
    asked = requests(3)
    too_long = {"message": "prompt is too long: 9 > 5", "type": "invalid_request_error"}
    broken = {"message": "try again", "type": "api_error"}

    def answer(body: dict) -> str | Refused:
        number = words_of(body)[-1]
        wrapped = {"0": Refused(400, {"error": too_long}), "1": Refused(500, {"error": broken})}
        return wrapped.get(number, "fine")

    with FakeBatchServer() as server:
        server.answer = answer
        submit(server, api, responses, tmp_path / "b", asked)
        server.end_all()
        failures = collect(server, api, responses, tmp_path / "b").failures
        assert (failures[asked[0].key].reason, failures[asked[0].key].passing) == ("prompt too long", False)
        assert (failures[asked[1].key].reason, failures[asked[1].key].passing) == ("server error", True)
        server.answer = lambda body: "fine"
        assert submit(server, api, responses, tmp_path / "b", asked) == 1
        assert asked[0].key not in server.batches[-1].rows


def test_collect_no_credit_within_a_batch_stores_the_rest_and_stops(responses, tmp_path):
    asked = requests(2)
    body = {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}
    with FakeBatchServer() as server:
        server.answer = lambda sent: Refused(429, body) if words_of(sent) == "words 0" else "fine"
        submit(server, "openai", responses, tmp_path / "b", asked)
        server.end_all()
        with pytest.raises(EndpointError, match="add credit, then run again"):
            collect(server, "openai", responses, tmp_path / "b")
    assert responses.get(asked[1].key).text == "fine"


@pytest.mark.parametrize("api", APIS)
def test_collect_results_cut_short_are_read_again_and_nothing_is_asked_twice(api, responses, tmp_path):
    asked = requests(8)
    with FakeBatchServer() as server:
        submit(server, api, responses, tmp_path / "b", asked)
        server.end_all()
        server.cut_results = 2
        collected = collect(server, api, responses, tmp_path / "b")
        assert (collected.num_stored, collected.num_damaged, collected.failures) == (8, 0, {})
        assert set(server.times_sent.values()) == {1}


@pytest.mark.parametrize("api", APIS)
def test_collect_damaged_lines_wait_for_later_downloads_before_they_are_given_up(api, responses, tmp_path):
    asked, purse = requests(5), Purse()
    with FakeBatchServer() as server:
        server.rewrite = lambda content: content.replace(b'"custom_id"', b'"custom_i', 1)
        submit(server, api, responses, tmp_path / "b", asked, spending=purse)
        server.end_all()
        first = collect(server, api, responses, tmp_path / "b", spending=purse)
        assert (first.num_stored, first.num_pending, first.failures) == (4, 1, {})
        assert submit(server, api, responses, tmp_path / "b", asked, spending=purse) == 0
        collect(server, api, responses, tmp_path / "b", spending=purse)
        last = collect(server, api, responses, tmp_path / "b", spending=purse)
    assert (last.num_pending, last.num_damaged) == (0, 1)
    assert [failure.reason for failure in last.failures.values()] == ["no result"]
    # The provider worked on it, so it counts as paid.
    assert sorted(purse.told.values())[0] == "abandoned, sent True"


def test_collect_request_without_any_line_in_an_expired_batch_is_not_charged(responses, tmp_path):
    asked, purse = requests(2), Purse()
    with FakeBatchServer() as server:
        server.answer = lambda body: LOST if words_of(body) == "words 0" else "fine"
        submit(server, "openai", responses, tmp_path / "b", asked, spending=purse)
        server.end_all("expired")
        collected = collect(server, "openai", responses, tmp_path / "b", spending=purse)
    assert [failure.reason for failure in collected.failures.values()] == ["batch expired"]
    assert sorted(purse.told.values()) == ["abandoned, sent False", "settled at 3, batch True"]


def test_collect_batch_that_failed_validation_is_told_in_one_sentence_and_may_be_submitted_again(responses, tmp_path):
    asked, purse = requests(3), Purse()
    with FakeBatchServer() as server:
        submit(server, "openai", responses, tmp_path / "b", asked, spending=purse)
        server.fail_all("model_not_found", "The provided model 'm' is not supported by the Batch API.", line=1)
        with pytest.raises(EndpointError) as told:
            collect(server, "openai", responses, tmp_path / "b", spending=purse)
        assert "refused a batch of 3 requests to 'm' (model_not_found, line 1: The provided model" in str(told.value)
        assert set(purse.told.values()) == {"abandoned, sent False"}
        assert submit(server, "openai", responses, tmp_path / "b", asked, spending=purse) == 3


def test_collect_batch_unknown_to_the_account_stops_before_anything_is_paid_again(responses, tmp_path):
    with FakeBatchServer() as server:
        submit(server, "openai", responses, tmp_path / "b", requests(2))
        server.batches.clear()
        with pytest.raises(EndpointError, match="does not know the batch batch_0 of 2 requests"):
            collect(server, "openai", responses, tmp_path / "b")
        assert submit(server, "openai", responses, tmp_path / "b", requests(2)) == 0
