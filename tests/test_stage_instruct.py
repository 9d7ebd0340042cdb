"""The stage: documents in, conversations and rejects out, against a fake generator."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from longalign_core.chat_client import ChatRequest, ResponseStore
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.errors import EndpointError
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Document, Message, Reject, text_sha256
from longalign_core.stages.instruct import instruct
from tests.fake_chat_server import FakeChatServer, Fault, completion, error_body, generic_reply

CONFIG = InstructConfig(generator=ChatModel(model="writer", max_tokens=100, context_tokens=100_000))
CLIENT = """
import sys
from pathlib import Path
from longalign_core.config.runtime import Runtime
from longalign_core.stages.instruct import instruct
from tests.test_stage_instruct import CONFIG

folder, out, url = sys.argv[1:]
runtime = Runtime(scratch=Path(folder) / "scratch", endpoints={"generator": url}, max_in_flight=2)
instruct.function(CONFIG, {"documents": (Path(folder) / "selected",)}, Path(out), runtime)
"""


@pytest.fixture(autouse=True)
def _no_key_in_the_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "LONGALIGN_GENERATOR_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def document_of(name: str, text: str, language: str = "en", num_tokens: int | None = None) -> Document:
    return Document(
        id=name,
        text=text,
        source=name.split("/")[0],
        language=language,
        origin="tests",
        sha256=text_sha256(text),
        licence="CC0-1.0",
        num_tokens=num_tokens,
    )


def documents_of(number: int) -> list[Document]:
    return [
        document_of(f"corpus/{n}", f"Document {n} tells of {n}. " * 3, "zh" if n % 5 == 0 else "en")
        for n in range(number)
    ]


def run(folder: Path, documents: list[Document], url: str | None, out: str = "out", **settings: object) -> dict:
    write_records(folder / "selected" / "documents.parquet", documents, Document)
    # Whatever else select leaves in its folder is not a document.
    write_records(folder / "selected" / "rejects.parquet", [], Reject)
    endpoints = {"generator": url} if url else {}
    runtime = Runtime(scratch=folder / "scratch", endpoints=endpoints, **settings)
    return instruct.function(CONFIG, {"documents": (folder / "selected",)}, folder / out, runtime)


def product(folder: Path, out: str = "out") -> tuple[list[Conversation], list[Reject]]:
    return (
        list(read_records(folder / out / "conversations.parquet", Conversation)),
        list(read_records(folder / out / "rejects.parquet", Reject)),
    )


def number_in(body: dict) -> int:
    return int(body["messages"][0]["content"].split()[1])


def is_answer_call(body: dict) -> bool:
    return "?" in body["messages"][0]["content"][-10:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_instruct_each_document_gives_a_conversation_of_its_text_a_question_and_the_answer(tmp_path):
    documents = documents_of(10)
    with FakeChatServer(generic_reply) as server:
        counts = run(tmp_path, documents, server.url)
        asked = {body["messages"][0]["content"]: generic_reply(body) for body in server.requests}
    conversations, rejects = product(tmp_path)
    assert [one.document_id for one in conversations] == [one.id for one in documents]
    assert rejects == []
    for document, conversation in zip(documents, conversations, strict=True):
        user, assistant = conversation.messages
        assert user.content.startswith(document.text)
        assert asked[user.content] == assistant.content
        question = user.content.removeprefix(document.text).strip()
        (listed,) = [reply for prompt, reply in asked.items() if prompt.startswith(document.text) and question in reply]
        assert f": {question}\n" in f"{listed}\n"
        assert (conversation.language, conversation.licence) == (document.language, "CC0-1.0")
        assert conversation.model == "writer"
    assert Counter(one.task_type for one in conversations).keys() == {"general", "summary", "reasoning", "extraction"}
    assert (counts["documents"], counts["conversations"], counts["rejects"], counts["calls"]) == (10, 10, 0, 20)
    assert sum(value for name, value in counts.items() if name.startswith("conversations: ")) == 10
    assert counts["prompt_tokens"] == sum(len(prompt.split()) for prompt in asked)


def test_instruct_json_lines_have_the_form_of_the_published_set(tmp_path):
    with FakeChatServer(generic_reply) as server:
        run(tmp_path, documents_of(3), server.url)
    rows = [json.loads(line) for line in (tmp_path / "out" / "conversations.jsonl").read_text("utf-8").splitlines()]
    conversations, _ = product(tmp_path)
    for row, conversation in zip(rows, conversations, strict=True):
        assert [set(turn) for turn in row["messages"]] == [{"role", "content"}] * 2
        assert [turn["content"] for turn in row["messages"]] == [one.content for one in conversation.messages]
        assert (row["document_id"], row["task_type"], row["model"]) == (
            conversation.document_id,
            conversation.task_type,
            "writer",
        )


def test_instruct_real_texts_of_two_languages_go_out_unchanged(tmp_path, test_data):
    with gzip.open(test_data / "corpora/c4/en/c4-train.00000-of-00001.json.gz", "rt", encoding="utf-8") as file:
        english = [json.loads(line)["text"] for line, _ in zip(file, range(5), strict=False)]
    chinese = (test_data / "corpora/clue/clue_small_0000.txt").read_text("utf-8").split("\n\n")[:3]
    texts = [(text, "en") for text in english] + [(text, "zh") for text in chinese]
    documents = [document_of(f"real/{n}", text, language) for n, (text, language) in enumerate(texts)]
    with FakeChatServer(generic_reply) as server:
        counts = run(tmp_path, documents, server.url)
        prompts = [body["messages"][0]["content"] for body in server.requests]
    assert counts["conversations"] == len(documents)
    for document in documents:
        assert sum(prompt.startswith(document.text + "\n\n") for prompt in prompts) == 2


def test_instruct_more_calls_at_once_changes_nothing_in_the_product(tmp_path):
    documents = documents_of(12)

    def respond(body: dict) -> Fault:
        # Later documents are answered sooner.
        delay = 0.03 * (3 - number_in(body) % 4)
        return Fault(status=200, delay=delay, body=completion(generic_reply(body), body=body))

    with FakeChatServer(respond) as server:
        counts = [run(tmp_path / str(at_once), documents, server.url, max_in_flight=at_once) for at_once in (1, 7)]
    one, seven = (
        [(tmp_path / name / "out" / file).read_bytes() for file in ("conversations.parquet", "conversations.jsonl")]
        for name in ("1", "7")
    )
    assert one == seven
    assert counts[0] == counts[1]


def test_instruct_run_again_under_another_address_asks_nothing(tmp_path):
    documents = documents_of(6)
    with FakeChatServer(generic_reply) as server:
        first = run(tmp_path, documents, server.url, out="one")
        second = run(tmp_path, documents, server.url, out="two")
        assert len(server.requests) == 12
    assert (second["calls"], second["stored_calls"]) == (0, 12)
    assert {name: second[name] for name in ("prompt_tokens", "reply_tokens")} == {
        name: first[name] for name in ("prompt_tokens", "reply_tokens")
    }
    assert product(tmp_path, "one") == product(tmp_path, "two")


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
    9: (Fault(status=500), "call failed"),
    10: (Fault(drop_connection=True), "call failed"),
    11: (Fault(status=400, body=error_body("too long", "context_length_exceeded")), "prompt too long"),
    12: (Fault(status=400, body=error_body("unsafe", "content_filter")), "content filter"),
    13: (Fault(status=200, delay=60), "call failed"),
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
            tmp_path, documents_of(20), server.url, request_timeout_seconds=1.0, max_retries=1, max_in_flight=20
        )
    conversations, rejects = product(tmp_path)
    expected = {f"corpus/{number}": reason for number, (_, reason) in FAULTS.items() if reason}
    assert {reject.id: reject.reason for reject in rejects} == expected
    assert {one.document_id for one in conversations} == {f"corpus/{n}" for n in range(20)} - set(expected)
    assert all(call in reject.detail and reject.stage == "instruct" for reject in rejects)
    assert counts["rejects"] == len(expected)
    assert counts["rejects: call failed"] == 3


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


def test_instruct_without_documents_needs_no_endpoint(tmp_path):
    counts = run(tmp_path, [], None)
    assert (counts["documents"], counts["conversations"], counts["rejects"]) == (0, 0, 0)
    assert product(tmp_path) == ([], [])


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
