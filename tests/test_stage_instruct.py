"""The stage: documents in, conversations out, against a fake generator."""

from __future__ import annotations

import gzip
import json
from collections import Counter

from tests.fake_chat_server import FakeChatServer, Fault, completion, generic_reply
from tests.instruct_setup import document_of, documents_of, number_in, product, run


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


def test_instruct_without_documents_needs_no_endpoint(tmp_path):
    counts = run(tmp_path, [], None)
    assert (counts["documents"], counts["conversations"], counts["rejects"]) == (0, 0, 0)
    assert product(tmp_path) == ([], [])


def test_instruct_on_texts_that_may_not_be_passed_on_is_marked(tmp_path):
    rows = [{"source": "corpus", "licence": None, "redistributable": False, "records": 3, "by_licence": {}}]
    (tmp_path / "selected").mkdir()
    (tmp_path / "selected" / "licences.json").write_text(json.dumps(rows))
    with FakeChatServer(generic_reply) as server:
        counts = run(tmp_path, documents_of(3), server.url)
    assert counts["not redistributable"] == "corpus"
    (told,) = json.loads((tmp_path / "out" / "licences.json").read_text())
    assert (told["source"], told["redistributable"], told["by_licence"]) == ("corpus", False, {"CC0-1.0": 3})
