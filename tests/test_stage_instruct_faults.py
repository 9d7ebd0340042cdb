"""The stage when the generator, the key or the machine fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter

import pytest

from longalign_core.chat_client import ChatRequest, ResponseStore
from longalign_core.errors import EndpointError
from longalign_core.record_files import write_records
from longalign_core.records import Document, Message
from tests.chat_setup import free_port
from tests.fake_chat_server import FakeChatServer, Fault, completion, error_body, generic_reply
from tests.instruct_setup import document_of, documents_of, is_answer_call, number_in, product, run

CLIENT = """
import sys
from pathlib import Path
from longalign_core.config.runtime import Runtime
from longalign_core.stages.instruct import instruct
from tests.instruct_setup import CONFIG

folder, out, url = sys.argv[1:]
places = {"scratch": Path(folder) / "scratch", "store": str(Path(folder) / "store")}
runtime = Runtime(**places, endpoints={"generator": url}, max_in_flight=2)
instruct.function(CONFIG, {"documents": (Path(folder) / "selected",)}, Path(out), runtime)
"""


FAULTS: dict[int, tuple[Fault, str | None]] = {
    # What the server does at the first try only (None: the document is accepted) or at every try (the reason).
    0: (Fault(status=429, headers={"Retry-After": "0"}), None),
    1: (Fault(status=500), None),
    2: (Fault(drop_connection=True), None),
    3: (Fault(status=200, delay=60), None),
    4: (Fault(status=200, body=completion("text")[:-9]), None),
    5: (Fault(status=200, body=completion("")), "empty reply"),
    6: (Fault(status=200, body=completion("1: What is half a qu", finish_reason="length")), "truncated reply"),
    7: (Fault(status=200, body=completion(None, finish_reason="content_filter")), "content filter"),
    8: (Fault(status=200, body=completion("I'm sorry, but I can't do that.")), "refusal"),
    9: (Fault(status=400, body=error_body("no such thing", "invalid_request")), "request refused"),
    11: (Fault(status=400, body=error_body("too long", "context_length_exceeded")), "prompt too long"),
    12: (Fault(status=400, body=error_body("unsafe", "content_filter")), "content filter"),
}
PASSING: dict[int, Fault] = {
    2: Fault(status=500),
    3: Fault(status=429, headers={"Retry-After": "0"}),
    5: Fault(drop_connection=True),
    7: Fault(status=200, delay=60),
    8: Fault(status=503),
}


@pytest.mark.parametrize("call", ["questions", "answer"])
def test_instruct_faults_of_every_kind_end_in_a_conversation_or_a_reason(tmp_path, call):
    tries: Counter[int] = Counter()
    lock = threading.Lock()

    def respond(body: dict) -> str | Fault:
        number = number_in(body)
        if number in FAULTS and is_answer_call(body) == (call == "answer"):
            fault, reason = FAULTS[number]
            with lock:
                tries[number] += 1
            if reason or tries[number] == 1:
                return fault
        return generic_reply(body)

    with FakeChatServer(respond) as server:
        counts = run(
            tmp_path, documents_of(20), server.url, request_timeout_seconds=5.0, max_retries=1, max_in_flight=20
        )
    conversations, rejects = product(tmp_path)
    expected = {f"corpus/{number}": reason for number, (_, reason) in FAULTS.items() if reason}
    assert {reject.id: reject.reason for reject in rejects} == expected
    assert {one.document_id for one in conversations} == {f"corpus/{n}" for n in range(20)} - set(expected)
    assert all(call in reject.detail and reject.stage == "instruct" for reject in rejects)
    assert counts["rejects"] == len(expected)


@pytest.mark.parametrize("call", ["questions", "answer"])
def test_instruct_passing_faults_end_the_stage_after_everything_else_and_are_asked_again(tmp_path, call):
    def respond(body: dict) -> str | Fault:
        if is_answer_call(body) == (call == "answer") and (fault := PASSING.get(number_in(body))):
            return fault
        if number_in(body) == 9:
            return Fault(status=400, body=error_body("unsafe", "content_filter"))
        return generic_reply(body)

    with FakeChatServer(respond) as server, pytest.raises(EndpointError) as caught:
        run(tmp_path, documents_of(12), server.url, request_timeout_seconds=5.0, max_retries=0, max_in_flight=12)
    assert "5 model calls were given up" in str(caught.value)
    assert "generator: connection failed 1, rate limited 1, server error 2, timed out 1" in str(caught.value)
    assert "run again" in str(caught.value)
    assert not any(path.suffix in (".parquet", ".jsonl") for path in (tmp_path / "out").glob("[!.]*"))
    with FakeChatServer(generic_reply) as server:
        counts = run(tmp_path, documents_of(12), server.url)
        asked = Counter(number_in(body) for body in server.requests)
    # A refused request is not stored, so document 9 has its question call asked again.
    assert asked == {number: 2 if call == "questions" or number == 9 else 1 for number in [*PASSING, 9]}
    assert (counts["conversations"], counts["rejects"], counts["stored_calls"]) == (12, 0, 24 - asked.total())


def test_instruct_reply_without_questions_is_rejected_and_no_answer_is_asked(tmp_path):
    with FakeChatServer(lambda body: "The text is about many things.") as server:
        counts = run(tmp_path, documents_of(3), server.url)
        assert len(server.requests) == 3
    conversations, rejects = product(tmp_path)
    assert conversations == []
    assert {reject.reason for reject in rejects} == {"no questions parsed"}
    assert counts["rejects: no questions parsed"] == 3


def test_instruct_document_that_does_not_fit_the_window_is_rejected_without_a_call(tmp_path):
    documents = [
        document_of("corpus/counted", "word " * 10, num_tokens=99_900),
        document_of("corpus/uncounted", "word " * 100_000),
        document_of("corpus/fits", "word " * 10, num_tokens=90_000),
    ]
    with FakeChatServer(generic_reply) as server:
        run(tmp_path, documents, server.url)
        assert len(server.requests) == 2
    conversations, rejects = product(tmp_path)
    assert [one.id for one in conversations] == ["corpus/fits"]
    assert [(one.id, one.reason) for one in rejects] == [
        ("corpus/counted", "prompt too long"),
        ("corpus/uncounted", "prompt too long"),
    ]


def test_instruct_key_that_stops_working_stops_and_loses_nothing_answered(tmp_path):
    documents = documents_of(10)
    lock = threading.Lock()
    answered = []

    def respond(body: dict) -> str | Fault:
        with lock:
            if len(answered) == 7:
                return Fault(status=401)
            answered.append(body["messages"][0]["content"])
        return generic_reply(body)

    with FakeChatServer(respond) as server, pytest.raises(EndpointError, match="LONGALIGN_GENERATOR_API_KEY"):
        run(tmp_path, documents, server.url, max_in_flight=4)
    assert not (tmp_path / "out" / "conversations.parquet").exists()
    with FakeChatServer(generic_reply) as server:
        counts = run(tmp_path, documents, server.url, max_in_flight=4)
        asked = [body["messages"][0]["content"] for body in server.requests]
    assert set(asked).isdisjoint(answered)
    assert (counts["conversations"], counts["calls"], counts["stored_calls"]) == (10, 13, 7)


def test_instruct_wrong_key_or_unknown_model_or_no_server_stops_before_anything_is_spent(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGALIGN_GENERATOR_API_KEY", "sk-wrong-0123")
    with FakeChatServer(generic_reply, api_key="sk-right") as server:
        with pytest.raises(EndpointError, match="refuses the key in LONGALIGN_GENERATOR_API_KEY") as caught:
            run(tmp_path, documents_of(3), server.url)
        assert server.requests == []
    assert "sk-wrong" not in str(caught.value)
    with FakeChatServer(generic_reply, models=["other"]) as server:
        with pytest.raises(EndpointError, match="'writer'"):
            run(tmp_path, documents_of(3), server.url)
        assert server.requests == []
    with pytest.raises(EndpointError, match="cannot be reached"):
        run(tmp_path, documents_of(3), f"http://127.0.0.1:{free_port()}/v1")


@pytest.mark.slow
def test_instruct_killed_twice_never_repeats_a_stored_call(tmp_path):
    documents = documents_of(20)
    write_records(tmp_path / "selected" / "documents.parquet", documents, Document)
    replies = tmp_path / "scratch" / "responses" / "instruct.sqlite"
    lock = threading.Lock()
    running: list[subprocess.Popen[bytes]] = []
    kill_at = [9, 21]
    num_received = 0

    def respond(body: dict) -> str | Fault:
        nonlocal num_received
        with lock:
            num_received += 1
            if num_received in kill_at:
                running[-1].kill()
        return generic_reply(body)

    def key_of(body: dict) -> str:
        messages = tuple(Message(**message) for message in body["messages"])
        rest = {name: body[name] for name in ("model", "temperature", "top_p", "max_tokens")}
        return ChatRequest(messages=messages, purpose="", **rest).key

    with FakeChatServer(respond) as server:
        codes, before, num_repeated = [], [], 0
        for attempt in range(3):
            first = len(server.requests)
            if replies.exists():
                with ResponseStore(replies) as store:
                    stored_before = {key_of(body) for body in server.requests if store.get(key_of(body))}
            else:
                stored_before = set()
            before.append(len(stored_before))
            with lock:
                running.append(
                    subprocess.Popen(
                        [sys.executable, "-c", CLIENT, str(tmp_path), str(tmp_path / f"out {attempt}"), server.url],
                        env=os.environ,
                    )
                )
            codes.append(running[-1].wait(timeout=120))
            num_repeated += sum(key_of(body) in stored_before for body in server.requests[first:])
        num_asked = len(server.requests)
    assert codes == [-9, -9, 0]
    assert before[0] == 0 < before[1] < before[2]
    assert num_repeated == 0
    # Two calls under way at each kill is the most that may have to be asked once more.
    assert 40 <= num_asked <= 44
    conversations, rejects = product(tmp_path, "out 2")
    assert [one.document_id for one in conversations] == [one.id for one in documents]
    assert rejects == []
    assert not (tmp_path / "out 0" / "conversations.parquet").exists()
