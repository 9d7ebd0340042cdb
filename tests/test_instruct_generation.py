"""Conversations of every kind of task, through the real client against a fake generator."""

from __future__ import annotations

import json

import pytest

from longalign_core.chat_client import ChatRequest, ResponseStore
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.instruct.draws import Draws
from longalign_core.instruct.generation import Task, write_conversation
from longalign_core.records import Conversation, Reject
from tests.chat_setup import with_client
from tests.fake_chat_server import FakeChatServer
from tests.instruct_setup import document_of, is_questions_call, task_reply, words_of

KINDS = {
    "general": "general",
    "own": {
        "kind": "questions",
        "name": "own",
        "request_en": "Ask about {odd} %s names.",
        "request_zh": "询问{奇怪}的名称。",
    },
    "chat": {"kind": "follow_ups", "name": "chat", "min_turns": 3, "max_turns": 8},
    "code": {"kind": "code", "name": "code", "corpora": ["corpus"]},
    "several": {"kind": "several_documents", "name": "several", "num_documents": 3},
    "long": {"kind": "long_output", "name": "long", "min_words": 100},
}
TEXTS = {"en": "A long text about {braces} and more. ", "zh": "这是一篇很长的文章。"}


def config_of(kind: str, *, context_tokens: int = 100_000, **changes: object) -> InstructConfig:
    generator = ChatModel(model="writer", max_tokens=100, context_tokens=context_tokens)
    return InstructConfig(generator=generator, task_types=(KINDS[kind],), **changes)


def task_of(config: InstructConfig, language: str = "en", name: str = "corpus/1") -> Task:
    (task_type,) = config.tasks
    documents = []
    for number in range(task_type.num_documents):
        document = document_of(f"{name}{number or ''}", f"{number} {TEXTS[language] * 9}", language)
        documents.append(document)
    return Task(document=documents[0], more_documents=tuple(documents[1:]), task_type=task_type)


def respond(body: dict) -> str:
    if is_questions_call(body) or "100" not in words_of(body):
        return task_reply(body)
    if "请" in words_of(body):
        return (
            "".join(f"第{chr(0x4E00 + 7 * number)}节说明{chr(0x5100 + 3 * number)}事，" for number in range(30))
            + "完。"
        )
    return " ".join(f"Part {number} tells of matter{number}." for number in range(30))


def written(tmp_path, config, *, language="en", reply=respond, task=None):
    """What came, the bodies that were sent, and the draws."""
    asked: list[ChatRequest] = []
    with FakeChatServer(reply) as server, ResponseStore(tmp_path / "responses") as store:
        draws = Draws(store, config.seed)

        async def work(client):
            async def ask(request):
                asked.append(request)
                return await client.ask(request)

            return await write_conversation(task or task_of(config, language), config, ask, draws)

        return with_client(server.url, store, work), server.requests, asked


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
def test_write_conversation_every_kind_shares_its_document_and_alternates(tmp_path, kind, language):
    config = config_of(kind)
    conversation, bodies, asked = written(tmp_path, config, language=language)
    assert isinstance(conversation, Conversation)
    roles = [message.role for message in conversation.messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    if kind == "chat":
        assert 3 <= len(roles) // 2 <= 8
    else:
        assert len(roles) == 2
    task = task_of(config, language)
    shared = bodies[0]["messages"][0]["content"][: asked[0].shared_characters]
    assert all(one.text in shared for one in task.documents)
    assert {body["messages"][0]["content"][: len(shared)] for body in bodies} == {shared}
    assert {one.shared_characters for one in asked} == {len(shared)}
    assert {(one.task_type, one.corpus) for one in asked} == {(conversation.task_type, "corpus")}
    assert [one.continues for one in asked] == [False] + [True] * (len(asked) - 1)
    for body in bodies:
        if is_questions_call(body):
            request = words_of(body).removeprefix(shared)
            assert ("请" in request) == (language == "zh")
    assert conversation.more_documents == tuple(one.id for one in task.more_documents)
    counted = sum(len(message["content"].split()) for body in bodies for message in body["messages"])
    assert (conversation.usage["calls"], conversation.usage["prompt_tokens"]) == (len(roles), counted)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_write_conversation_answer_instructions_reuse_the_questions_and_stay_out_of_training(tmp_path, language):
    first, _, asked = written(tmp_path, config_of("general"), language=language)
    words = {"answer_instructions_en": "Quote the text.", "answer_instructions_zh": "请引用原文。"}
    second, bodies, again = written(tmp_path, config_of("general", **words), language=language)
    assert asked[0].key == again[0].key
    assert asked[1].key != again[1].key
    (body,) = bodies
    assert words_of(body) == f"{first.messages[0].content}\n\n{words[f'answer_instructions_{language}']}"
    assert second.messages[0] == first.messages[0]


def test_write_conversation_long_output_names_the_length_and_rejects_a_shorter_answer(tmp_path):
    kept, _, _ = written(tmp_path, config_of("long"))
    assert kept.messages[0].content.endswith("Write at least 100 words.")
    reject, _, _ = written(tmp_path / "short", config_of("long"), reply=task_reply)
    assert isinstance(reject, Reject)
    assert reject.reason == "answer too short"


def test_write_conversation_full_window_ends_follow_ups_after_the_fewest_turns_or_rejects(tmp_path):
    seed = next(
        seed for seed in range(99) if len(written(tmp_path / f"{seed}", config_of("chat", seed=seed))[0].messages) == 16
    )
    seen = set()
    for context_tokens in (400, 600, 800, 1000, 1200, 3000):
        config = config_of("chat", seed=seed, context_tokens=context_tokens)
        outcome, _, _ = written(tmp_path / f"w{context_tokens}", config)
        if isinstance(outcome, Reject):
            assert outcome.reason == "prompt too long"
            seen.add("rejected")
        else:
            turns = len(outcome.messages) // 2
            assert turns >= 3
            assert outcome.usage.get("turns_left_out", 0) == 8 - turns
            seen.add("whole" if turns == 8 else "shortened")
    assert seen == {"rejected", "shortened", "whole"}


def test_write_conversation_structured_questions_ask_by_schema_and_read_json(tmp_path):
    def as_json(body: dict) -> str:
        if not words_of(body).endswith("lists the 5 questions."):
            return task_reply(body)
        return json.dumps({"questions": [f"Why does {name} matter?" for name in ("Ada", "Ben", "Cid", "Dan", "Eva")]})

    conversation, _, asked = written(tmp_path, config_of("general", structured_questions=True), reply=as_json)
    assert "matter?" in conversation.messages[0].content
    assert json.loads(asked[0].reply_schema)["required"] == ["questions"]
    assert asked[1].reply_schema is None


def test_write_conversation_replayed_in_another_order_asks_nothing_new(tmp_path):
    def common(body: dict) -> str:
        return "1: What is it about?\n2: Who wrote it?" if is_questions_call(body) else task_reply(body)

    config = config_of("general")
    tasks = [task_of(config, name=f"corpus/{number}") for number in range(5)]
    tasks = [Task(document=document_of(f"c/{n}", f"{n} words"), task_type=one.task_type) for n, one in enumerate(tasks)]
    with FakeChatServer(common) as server, ResponseStore(tmp_path / "responses") as store:

        def run(order):
            draws = Draws(store, config.seed)

            async def work(client):
                return [await write_conversation(one, config, client.ask, draws) for one in order]

            return {one.id: one.messages for one in with_client(server.url, store, work)}

        first = run(tasks)
        num_calls = len(server.requests)
        assert run(tasks[::-1]) == first
        assert len(server.requests) == num_calls == 10


def test_write_conversation_answer_that_quotes_a_refusal_stays_and_one_that_refuses_goes(tmp_path):
    quoted = "I cannot go on, says the narrator, and then goes on all the same, for four more chapters of the book."
    for name, answer, kept in (("a", quoted, True), ("b", "I'm sorry, but I can't help with that.", False)):
        outcome, _, _ = written(
            tmp_path / name,
            config_of("general"),
            reply=lambda body, answer=answer: task_reply(body) if is_questions_call(body) else answer,
        )
        assert isinstance(outcome, Conversation) == kept
        assert kept or outcome.reason == "refusal"


def test_write_conversation_refused_list_is_a_refusal_though_it_is_numbered(tmp_path):
    reply = "I cannot write questions about this text:\n1. It is too long.\n2. It is in two languages."
    outcome, bodies, _ = written(tmp_path, config_of("general"), reply=lambda body: reply)
    assert (outcome.reason, len(bodies)) == ("refusal", 1)
    assert outcome.detail.startswith("questions: ")
