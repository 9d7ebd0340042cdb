"""The stage through each provider's own interface: what is sent, what is paid, and what stops it."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.errors import EndpointError, InputError
from longalign_core.record_files import write_records
from longalign_core.records import Document
from longalign_core.stages.instruct import instruct
from tests.fake_chat_server import FakeChatServer, Fault, anthropic_error, completion, error_body, generic_reply
from tests.fake_replies import message, turns_of
from tests.instruct_setup import documents_of, product

GENERATOR = ChatModel(model="writer", max_tokens=100, context_tokens=100_000)
APIS = ("openai", "openai-responses", "anthropic")


def run(folder: Path, url: str, api: str = "openai", generator: ChatModel = GENERATOR, **settings: object) -> dict:
    write_records(folder / "selected" / "documents.parquet", documents_of(6), Document)
    endpoint = f"{api}+{url}" if api else url
    runtime = Runtime(
        scratch=folder / "scratch", store=str(folder / "store"), endpoints={"generator": endpoint}, **settings
    )
    config = InstructConfig(generator=generator)
    return instruct.function(config, {"documents": (folder / "selected",)}, folder / "out", runtime)


@pytest.mark.parametrize("api", APIS)
def test_instruct_through_a_provider_gives_a_conversation_a_document(tmp_path, api):
    with FakeChatServer(generic_reply) as server:
        counts = run(tmp_path, server.url, api)
    conversations, rejects = product(tmp_path)
    assert (len(conversations), rejects, counts["calls"], counts["paid_calls"]) == (6, [], 12, 12)


def test_instruct_at_anthropic_marks_the_same_bytes_of_a_document_in_both_of_its_calls(tmp_path):
    with FakeChatServer(generic_reply) as server:
        run(tmp_path, server.url, "anthropic")
        contents = list(server.contents)
    firsts = [content[content.index(b'{"type":"text"') : content.index(b'"cache_control"')] for content in contents]
    by_document = {first: firsts.count(first) for first in firsts}
    assert len(by_document) == 6
    assert set(by_document.values()) == {2}
    for content in contents:
        marked, question = json.loads(content)["messages"][0]["content"]
        assert marked["cache_control"] == {"type": "ephemeral"}
        assert "cache_control" not in question
        assert documents_of(6)[int(marked["text"].split()[1])].text in marked["text"]


def test_instruct_at_openai_names_one_cache_key_a_document(tmp_path):
    for api in ("openai", "openai-responses"):
        with FakeChatServer(generic_reply) as server:
            run(tmp_path / api, server.url, api)
            keys = {(body["prompt_cache_key"], turns_of(body)[0][1].split()[1]) for body in server.requests}
        assert len(keys) == 6


def test_instruct_cached_and_written_tokens_are_paid_at_their_prices(tmp_path):
    (tmp_path / "prices.yaml").write_text(
        "schema: 1\ndate: 2026-11-22\nmodels:\n"
        "  writer: {input: 10.0, output: 20.0, cached_input: 1.0, cache_write: 12.5, seen: made up}\n"
    )

    def respond(body: dict) -> Fault:
        is_answer = "1:" not in turns_of(body)[-1][1][-1200:] and "1：" not in turns_of(body)[-1][1][-1200:]
        reads, writes = (900, 0) if is_answer else (0, 900)
        usage = {
            "input_tokens": 100,
            "cache_read_input_tokens": reads,
            "cache_creation_input_tokens": writes,
            "output_tokens": 10,
        }
        return Fault(status=200, body=message(generic_reply(body), body=body, usage=usage))

    with FakeChatServer(respond) as server:
        counts = run(tmp_path, server.url, "anthropic", prices=tmp_path / "prices.yaml", budget_dollars=5.0)
    per_document = (2 * (100 * 10 + 10 * 20) + 900 * 12.5 + 900 * 1.0) / 1e6
    assert counts["dollars"] == pytest.approx(6 * per_document)
    assert counts["paid_tokens"] == 12 * 1010


NO_CREDIT = {
    "openai": Fault(status=429, body=error_body("You exceeded your current quota", "insufficient_quota")),
    "openai-responses": Fault(status=429, body=error_body("You exceeded your current quota", "insufficient_quota")),
    "anthropic": Fault(status=400, body=anthropic_error("Your credit balance is too low to access the API")),
}


@pytest.mark.parametrize("api", APIS)
def test_instruct_key_without_credit_stops_with_one_sentence_and_nothing_counted(tmp_path, api, monkeypatch):
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", "sk-very-secret")
    with FakeChatServer(lambda body: NO_CREDIT[api]) as server, pytest.raises(EndpointError) as caught:
        run(tmp_path, server.url, api, max_in_flight=2, max_retries=5)
        assert len(server.requests) <= 2
    assert "the account's quota is used up; add credit, then run again" in str(caught.value)
    assert "sk-very-secret" not in str(caught.value)
    assert len(server.requests) <= 2
    with FakeChatServer(generic_reply) as server:
        counts = run(tmp_path, server.url, api)
    assert counts["paid_calls"] == 12


@pytest.mark.parametrize("api", [*APIS, ""])
def test_instruct_model_that_does_not_exist_is_refused_before_a_call(tmp_path, api):
    with FakeChatServer(generic_reply, models=["another"]) as server:
        with pytest.raises(EndpointError, match=r"writer.*correct the model's name"):
            run(tmp_path, server.url, api)
        assert [body for body in server.requests if len(str(body)) > 1000] == []


@pytest.mark.parametrize("api", APIS)
def test_instruct_wrong_key_is_refused_before_a_call(tmp_path, api, monkeypatch, caplog):
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    with FakeChatServer(generic_reply, api_key="sk-other") as server:
        with pytest.raises(EndpointError, match="refuses the key in LONGALIGN_GENERATOR_API_KEY") as caught:
            run(tmp_path, server.url, api)
        assert server.requests == []
    assert "sk-very-secret" not in str(caught.value) + caplog.text
    assert not any(b"sk-very-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_instruct_sampling_that_the_provider_does_not_take_is_said_and_counts_nothing(tmp_path):
    both = ChatModel(model="writer", max_tokens=100, context_tokens=100_000, temperature=0.5, top_p=0.5)
    with FakeChatServer(generic_reply) as server:
        with pytest.raises(InputError, match="set top_p or temperature to 1"):
            run(tmp_path, server.url, "anthropic", both)
        assert server.requests == []
        assert run(tmp_path, server.url, "anthropic")["paid_calls"] == 12


def test_instruct_question_with_half_a_surrogate_pair_ends_as_a_reason_and_counts_nothing(tmp_path):
    """Models reply so when a pair is cut by their tokens; no request can carry it on."""

    def respond(body: dict) -> str | Fault:
        words = generic_reply(body)
        if words.startswith("1:") and "Document 3" in turns_of(body)[0][1]:
            words = "\n".join(f"{n}: What is \ud83d of {hashlib.sha256(bytes([n])).hexdigest()}?" for n in range(1, 6))
        return Fault(status=200, body=completion(words, body=body))

    with FakeChatServer(respond) as server:
        counts = run(tmp_path, server.url, "", budget_tokens=1_000_000)
    conversations, rejects = product(tmp_path)
    assert (len(conversations), [one.reason for one in rejects]) == (5, ["reply is no text"])
    assert counts["paid_calls"] == 11


@pytest.mark.parametrize("api", ["", "anthropic"])
def test_instruct_answer_with_half_a_surrogate_pair_ends_as_a_reason(tmp_path, api):
    """It can be stored as no UTF-8; once it was paid for and kept, every run would end with it."""

    def respond(body: dict) -> str:
        words = generic_reply(body)
        is_answer = words.startswith("The text")
        return f"{words[:-1]} \ud83d." if is_answer and "Document 3" in turns_of(body)[0][1] else words

    with FakeChatServer(respond) as server:
        run(tmp_path, server.url, api)
    conversations, rejects = product(tmp_path)
    assert len(conversations) == 5
    assert [(one.id, one.reason) for one in rejects] == [("corpus/3", "reply is no text")]
