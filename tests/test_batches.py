"""Batches of both providers, driven through their SDKs against a server that ends, fails and breaks them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longalign_core.chat_client import CallFailedError, ChatReply, ChatRequest
from longalign_core.chat_client.batch_packing import PartLimits
from longalign_core.chat_client.batches import BatchClient, Collected
from longalign_core.errors import BudgetError, EndpointError, StoreError
from tests.batch_setup import APIS, endpoint_of, requests, with_batches
from tests.chat_setup import FastClock, request_of
from tests.fake_batch_server import CANCELLED, EXPIRED, LOST, FakeBatchServer, Refused, words_of


class Purse:
    """A budget of so many requests."""

    def __init__(self, num_allowed: int = 1000) -> None:
        self.num_allowed = num_allowed
        self.told: dict[str, str] = {}

    async def admit(self, request: ChatRequest) -> str:
        if len(self.told) >= self.num_allowed:
            raise BudgetError("the cap is reached")
        ticket = f"ticket {len(self.told)}"
        self.told[ticket] = "open"
        return ticket

    def settle(self, ticket: str, reply: ChatReply) -> None:
        self.told[ticket] = f"settled at {reply.reply_tokens}, batch {reply.batch}"

    def abandon(self, ticket: str, *, sent: bool) -> None:
        self.told[ticket] = f"abandoned, sent {sent}"


def submit(server: FakeBatchServer, api, responses, folder: Path, asked: list[ChatRequest], **options: object) -> int:
    return with_batches(server.root, api, responses, folder, lambda client: client.submit(asked), **options)


def collect(server: FakeBatchServer, api, responses, folder: Path, **options: object) -> Collected:
    return with_batches(server.root, api, responses, folder, lambda client: client.collect(), **options)


def part_files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".part" in path.name]


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


@pytest.mark.parametrize("api", APIS)
def test_submit_requests_answered_under_way_or_repeated_are_left_out(api, responses, tmp_path):
    asked = requests(4)
    responses.put(asked[0], _reply("old"))
    with FakeBatchServer() as server:
        assert submit(server, api, responses, tmp_path / "b", [*asked[:3], *asked[:3]]) == 2
        assert submit(server, api, responses, tmp_path / "b", [*asked, *asked]) == 1
        assert server.times_sent == {asked[1].key: 1, asked[2].key: 1, asked[3].key: 1}


def _reply(text: str) -> ChatReply:
    return ChatReply(text=text, finish_reason="stop", model="m", prompt_tokens=1, reply_tokens=1, stored=False)


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


def test_submit_budget_reached_submits_what_was_admitted(responses, tmp_path):
    purse = Purse(num_allowed=3)
    with FakeBatchServer() as server:
        with pytest.raises(BudgetError):
            submit(server, "openai", responses, tmp_path / "b", requests(5), spending=purse)
        assert len(server.times_sent) == 3


def test_collect_batch_unknown_to_the_account_stops_before_anything_is_paid_again(responses, tmp_path):
    with FakeBatchServer() as server:
        submit(server, "openai", responses, tmp_path / "b", requests(2))
        server.batches.clear()
        with pytest.raises(EndpointError, match="does not know the batch batch_0 of 2 requests"):
            collect(server, "openai", responses, tmp_path / "b")
        assert submit(server, "openai", responses, tmp_path / "b", requests(2)) == 0


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


@pytest.mark.parametrize("api", APIS)
def test_check_endpoint_without_batches_says_what_to_set(api, responses, tmp_path):
    from tests.fake_chat_server import FakeChatServer

    with FakeBatchServer() as server:
        with_batches(server.root, api, responses, tmp_path / "a", lambda client: client.check("m"))
        assert server.batches == []
    with FakeChatServer(lambda body: "hi", models=["m"]) as server, pytest.raises(EndpointError, match="online"):
        with_batches(server.url.removesuffix("/v1"), api, responses, tmp_path / "b", lambda client: client.check("m"))
