"""Every kind of task in one run of the stage: both languages, code, several documents, faults, and a judge."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.quality import GroundingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Document, Reject, text_sha256
from longalign_core.stages.instruct import instruct
from tests.fake_chat_server import FakeChatServer, Fault, completion
from tests.instruct_setup import is_questions_call, task_reply, words_of

GENERATOR = ChatModel(model="writer", max_tokens=300, context_tokens=100_000)
JUDGE = ChatModel(model="judge", max_tokens=300, context_tokens=8_000)
KINDS = (
    "general",
    "summary",
    "reasoning",
    "extraction",
    {"kind": "follow_ups", "name": "conversation", "min_turns": 3, "max_turns": 4},
    {"kind": "code", "name": "code", "corpora": ["github"], "share": 2},
    {"kind": "several_documents", "name": "several", "num_documents": 2},
    {"kind": "long_output", "name": "long", "min_words": 100},
)
NAMES = [kind if isinstance(kind, str) else kind["name"] for kind in KINDS]
WEIGHTS = {name: 2 if name == "code" else 1 for name in NAMES}
CORPORA = {"arxiv": ("en", "CC-BY-4.0"), "github": ("en", "MIT OR Apache-2.0"), "wudao": ("zh", None)}
EDGES = (1_000, 5_000)
MARK = re.compile(r"@(\w+)/(\d+)@")
FAULTY = {3: "refusal", 7: "truncated reply", 11: "wrong language", 13: "content filter", 17: "no questions parsed"}


def documents_of(number: int) -> list[Document]:
    """As many of each corpus, in two length ranges; a repository's are of two licences."""
    found = []
    for source, (language, licence) in CORPORA.items():
        for n in range(number):
            words = (
                f"@{source}/{n}@ 第{n}篇文章讲述第{n}件事。" if language == "zh" else f"@{source}/{n}@ tells of {n}. "
            )
            text = words * 3
            found.append(
                Document(
                    id=f"{source}/{n}",
                    text=text,
                    source=source,
                    language=language,
                    origin="tests",
                    sha256=text_sha256(text),
                    title=f"Title {n}",
                    licence="CC0-1.0" if source == "github" and n % 2 else licence,
                    num_tokens=EDGES[n % 4 // 2] + n,
                )
            )
    return found


def respond(body: dict) -> str | Fault:
    """Good replies, but for documents whose number modulo 20 names a fault."""
    number = int(MARK.search(body["messages"][0]["content"])[2]) % 20
    is_chinese = "@wudao" in body["messages"][0]["content"]
    fault = FAULTY.get(number)
    if fault == "content filter":
        return Fault(status=200, body=completion("", body=body, finish_reason="content_filter"))
    if is_questions_call(body):
        return "Nothing comes to mind." if fault == "no questions parsed" else task_reply(body)
    if fault == "refusal":
        return "抱歉，我无法回答这个问题。" if is_chinese else "I'm sorry, but I can't help with that."
    if fault == "truncated reply":
        return Fault(status=200, body=completion("It is as", body=body, finish_reason="length"))
    if fault == "wrong language":
        other = "这篇文章所讲的就是它所讲的那些内容，除此之外没有别的说法可以补充。"
        return "The text says what it says and nothing else besides, of whatever kind." if is_chinese else other
    if "at least 100 words" in words_of(body):
        return " ".join(f"Part {n} tells of matter{n}." for n in range(30))
    if "不少于100字" in words_of(body):
        return "".join(f"第{chr(0x4E00 + 7 * n)}节说明{chr(0x5100 + 3 * n)}事，" for n in range(30)) + "完。"
    return task_reply(body)


def selected(folder: Path, number: int) -> dict[str, Document]:
    documents = documents_of(number)
    write_records(folder / "selected" / "documents.parquet", documents, Document)
    cells = [{"min_tokens": edge, "max_tokens": edge + 3_999} for edge in EDGES]
    (folder / "selected" / "selection.json").write_text(json.dumps({"cells": cells}))
    return {one.id: one for one in documents}


def run(folder: Path, config: InstructConfig, out: str = "out", **urls: str) -> dict:
    runtime = Runtime(scratch=folder / "scratch", store=str(folder / "store"), endpoints=urls)
    return instruct.function(config, {"documents": (folder / "selected",)}, folder / out, runtime)


def product(folder: Path, out: str = "out") -> tuple[list[Conversation], list[Reject]]:
    return (
        list(read_records(folder / out / "conversations.parquet", Conversation)),
        list(read_records(folder / out / "rejects.parquet", Reject)),
    )


@pytest.mark.slow
def test_instruct_every_kind_in_one_run_is_exact_complete_and_in_form(tmp_path):
    documents = selected(tmp_path, 80)
    with FakeChatServer(respond) as server:
        config = InstructConfig(generator=GENERATOR, task_types=KINDS, num_conversations=120)
        counts = run(tmp_path, config, generator=server.url)
    conversations, rejects = product(tmp_path)
    assert counts["conversations"] == len(conversations) == 120
    assert sorted([one.id for one in conversations] + [one.id for one in rejects]) == sorted(documents)
    assert {one.reason for one in rejects} == {*FAULTY.values(), "not needed"}
    for one in rejects:
        assert one.reason in ("not needed", FAULTY.get(int(one.id.split("/")[1]) % 20)), one

    found = Counter((one.source, int(one.id.split("/")[1]) % 4 // 2, one.task_type) for one in conversations)
    assert {kind for _, _, kind in found} == set(NAMES)
    for source in CORPORA:
        weights = {kind: weight for kind, weight in WEIGHTS.items() if kind != "code" or source == "github"}
        for bucket in (0, 1):
            assert sum(found[source, bucket, kind] for kind in NAMES) == 20
            for kind in NAMES:
                wanted = 20 * weights.get(kind, 0) / sum(weights.values())
                assert abs(found[source, bucket, kind] - wanted) < 1

    rows = [json.loads(line) for line in (tmp_path / "out" / "conversations.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [one.id for one in conversations]
    for row, one in zip(rows, conversations, strict=True):
        document = documents[one.id]
        more = [documents[name] for name in one.more_documents]
        turns = row["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert len(turns) in ((6, 8) if one.task_type == "conversation" else (2,))
        assert all(turn["content"].strip() for turn in turns)
        assert (one.document_id, one.language, one.model) == (one.id, document.language, "writer")
        assert len(more) == (one.task_type == "several")
        assert row.get("more_documents", []) == list(one.more_documents)
        if not more:
            assert turns[0]["content"].startswith(document.text + "\n\n")
            assert one.licence == document.licence
        for other in (document, *more):
            assert other.text in turns[0]["content"]
            assert (other.source, other.language) == (one.source, one.language)
        if more and {document.licence, more[0].licence} == {"CC0-1.0", "MIT OR Apache-2.0"}:  # in either order
            assert one.licence == "CC0-1.0 AND (MIT OR Apache-2.0)"
        assert row["usage"]["calls"] == len(turns)
        assert row["usage"]["prompt_tokens"] > 0
        question = turns[0]["content"].rpartition("\n\n")[2]
        assert bool(re.search("[一-鿿]", question)) == (one.language == "zh")
    assert json.loads((tmp_path / "out" / "instruct.json").read_text())["shortfalls"] == []


@pytest.mark.parametrize("verdict", ["claims", "answer"])
def test_instruct_judge_sees_passages_only_and_decides_what_stays(tmp_path, verdict):
    selected(tmp_path, 6)

    def judge(body: dict) -> str:
        number = int(re.search(r"[\w]+/(\d+)@", body["messages"][0]["content"])[1])
        good, bad = ("[[3/3]]", "[[1/3]]") if verdict == "claims" else ("[[supported]]", "[[unsupported]]")
        return "No verdict." if number == 2 else f"So it is.\n{bad if number == 1 else good}"

    def answer(body: dict) -> str:
        if is_questions_call(body):
            return task_reply(body)
        source, number = MARK.search(body["messages"][0]["content"]).groups()
        end = f"第{number}篇文章就是这样讲述的。" if source == "wudao" else f"tells of {number}, says the text."
        return f"{source}/{number}@ {end}"

    grounding = GroundingConfig(judge=JUDGE, verdict=verdict, passages=2, passage_words=20)
    config = InstructConfig(generator=GENERATOR, task_types=("general",), grounding=grounding)
    with FakeChatServer(answer) as writing, FakeChatServer(judge) as judging:
        run(tmp_path, config, generator=writing.url, judge=judging.url)
        asked = [words_of(body) for body in judging.requests]
        assert {body["model"] for body in judging.requests} == {"judge"}
        num_written = len(writing.requests)
        run(tmp_path, config, "again", generator=writing.url, judge=judging.url)
        assert (len(writing.requests), len(judging.requests)) == (num_written, len(asked))
    conversations, rejects = product(tmp_path)
    assert sorted(one.id for one in conversations) == [f"{name}/{n}" for name in CORPORA for n in (0, 3, 4, 5)]
    assert sorted((one.id, one.reason) for one in rejects) == [
        (f"{name}/{n}", reason)
        for name in CORPORA
        for n, reason in ((1, "unsupported answer"), (2, "grounding unscored"))
    ]
    assert all(one.evidence for one in conversations)
    assert len(asked) == 3 * (5 + 2)
    spent = json.loads((tmp_path / "out" / "spending.json").read_text())
    assert {row["purpose"]: row["calls"] for row in spent["rows"] if row["corpus"] == "wudao"} == {
        "questions": 6,
        "answer": 6,
        "grounding": 7,
    }


def test_instruct_structured_questions_ask_by_a_schema_that_strict_modes_take(tmp_path):
    selected(tmp_path, 4)

    def as_json(body: dict) -> str:
        listed = re.findall(r"^\d: (.*)$", task_reply(body), re.MULTILINE)
        asks_json = "response_format" in body
        return json.dumps({"questions": listed}) if asks_json else task_reply(body)

    config = InstructConfig(generator=GENERATOR, task_types=("general", KINDS[4]), structured_questions=True)
    with FakeChatServer(as_json) as server:
        counts = run(tmp_path, config, generator=server.url)
        by_schema = [body["response_format"] for body in server.requests if "response_format" in body]
    assert counts["conversations"] == 12
    assert len(by_schema) == len(server.requests) // 2
    for asked in by_schema:
        assert asked["type"] == "json_schema"
        assert asked["json_schema"]["strict"] is True
        assert_strict(asked["json_schema"]["schema"])


def assert_strict(schema: dict) -> None:
    """What OpenAI's and Anthropic's structured outputs ask of every object."""
    if schema["type"] == "object":
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
        for one in schema["properties"].values():
            assert_strict(one)
    if schema["type"] == "array":
        assert set(schema) == {"type", "items"}, "bounds of arrays are not supported everywhere"
        assert_strict(schema["items"])
