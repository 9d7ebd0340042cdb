import json
import logging
import random
from itertools import pairwise

import orjson
import pytest

from longalign_core.config.mixture import InstructionSet, MixtureConfig
from longalign_core.errors import DataError, InputError
from tests.mixture_setup import Room, chat


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


def test_mixture_all_takes_every_conversation_and_writes_both_forms(room):
    sets = (room.set_of([chat(number) for number in range(4)], language="zh", licence="MIT"),)
    counts, mixed, rejects = room.run(3, suite="all", sets=sets)
    assert (counts["conversations"], counts["long"], counts["set chat"], rejects) == (7, 3, 4, [])
    short = [one for one in mixed if one.source == "chat"]
    assert {(one.language, one.licence, one.task_type, one.document_id) for one in short} == {
        ("zh", "MIT", "chat", None)
    }
    rows = [orjson.loads(line) for line in (room.out / "conversations.jsonl").read_bytes().splitlines()]
    assert [row["id"] for row in rows] == [one.id for one in mixed]
    assert rows[0]["messages"] == [{"role": one.role, "content": one.content} for one in mixed[0].messages]
    assert all(row["document_id"] == row["id"] for row in rows if row["source"] == "books")
    assert sorted(path.name for path in room.out.iterdir()) == [
        "README.md", "conversations.jsonl", "conversations.parquet", "licences.json", "mixture.json", "rejects.parquet",
    ]  # fmt: skip


def test_mixture_suite_0k_takes_no_long_conversation(room):
    counts, mixed, rejects = room.run(3, suite="0k", sets=(room.set_of([chat(1)]),))
    assert {one.source for one in mixed} == {"chat"}
    assert [reject.reason for reject in rejects] == ["not drawn"] * 3
    assert counts["long missing"] == 0


def test_mixture_suite_5k_takes_five_thousand_of_more(room):
    counts, mixed, rejects = room.run(5_003, suite="5k")
    assert (len(mixed), counts["long"], counts["long missing"]) == (5_000, 5_000, 0)
    assert [reject.reason for reject in rejects] == ["not drawn"] * 3


def test_mixture_suite_larger_than_what_there_is_takes_all_and_warns(room, caplog):
    with caplog.at_level(logging.WARNING):
        counts, mixed, _ = room.run(3, suite="10k")
    assert (len(mixed), counts["long missing"]) == (3, 9_997)
    assert any(record.levelno == logging.WARNING for record in caplog.records)


def test_mixture_longalpaca_replaces_the_long_conversations(room):
    alpaca = room.set_of([{"instruction": "read this", "input": "", "output": "done", "file": "x"}], "longalpaca")
    _, mixed, _ = room.run(3, suite="longalpaca-12k", sets=(alpaca,))
    assert [[message.content for message in one.messages] for one in mixed] == [["read this", "done"]]


def test_mixture_longalpaca_without_its_set_is_no_config(room):
    with pytest.raises(ValueError, match="needs an instruction set named longalpaca"):
        MixtureConfig(suite="longalpaca-12k", sets=(room.set_of([chat(1)]),))


def test_mixture_order_and_caps_depend_on_seed_and_content_alone(room):
    rows = [chat(number) for number in range(60)]
    _, first, _ = room.run(30, suite="all", seed=3, sets=(room.set_of(rows, max_conversations=20),))
    shuffled = random.Random(1).sample(rows, 60)
    order = random.Random(2).sample(range(30), 30)
    again = room.set_of(shuffled, form="jsonl.gz", max_conversations=20)
    _, second, _ = room.run(order=order, suite="all", seed=3, sets=(again,))
    assert first == second
    assert len(first) == 50
    _, other, _ = room.run(30, suite="all", seed=4, sets=(again,))
    assert {one.id for one in other} != {one.id for one in first}
    sources = [one.source for one in first]
    assert sum(a != b for a, b in pairwise(sources)) > 5, "sets are not mixed"


def test_mixture_sharegpt_empty_assistant_turns_go_with_their_question(room):
    def sharegpt(*turns):
        return {"conversations": [{"from": who, "value": text} for who, text in turns]}

    rows = [
        sharegpt(("system", "be brief"), ("human", "a"), ("gpt", " \n"), ("human", "b"), ("gpt", "yes\n\nno")),
        sharegpt(("human", "c"), ("gpt", "d"), ("human", "thanks")),
        sharegpt(("human", "e"), ("gpt", "")),
        sharegpt(("gpt", "f"), ("human", "g"), ("gpt", "h")),
        sharegpt(("human", "i"), ("human", "j"), ("gpt", "k")),
        sharegpt(("human", "l")),
        sharegpt(),
        sharegpt(("tool", "m"), ("gpt", "n")),
    ]
    counts, mixed, rejects = room.run(suite="0k", sets=(room.set_of(rows),))
    assert sorted([(one.role, one.content) for one in conversation.messages] for conversation in mixed) == [
        [("system", "be brief"), ("user", "b"), ("assistant", "yes\n\nno")],
        [("user", "c"), ("assistant", "d")],
    ]
    assert (counts["empty turns dropped"], counts["unanswered turns dropped"]) == (1, 1)
    assert [(reject.id, reject.reason) for reject in rejects] == [
        ("chat:chat.jsonl#3", "no assistant turn"),
        ("chat:chat.jsonl#4", "does not alternate"),
        ("chat:chat.jsonl#5", "does not alternate"),
        ("chat:chat.jsonl#6", "no assistant turn"),
        ("chat:chat.jsonl#7", "no assistant turn"),
        ("chat:chat.jsonl#8", "unknown role"),
    ]


def test_mixture_unusable_lines_are_rejected_by_name_and_the_rest_kept(room):
    rows = [
        chat(1),
        "{broken",
        "",
        {"prompt": "?"},
        "7",
        {"messages": [{"role": "user", "content": [1]}]},
        {"instruction": "do", "input": "this", "output": "done"},
        chat(1),
    ]
    counts, mixed, rejects = room.run(suite="0k", sets=(room.set_of(rows),))
    assert sorted(conversation.messages[0].content for conversation in mixed) == ["do\n\nthis", "q1"]
    assert [(reject.id.split("#")[-1], reject.reason) for reject in rejects[:-1]] == [
        ("2", "broken line"),
        ("4", "unknown form"),
        ("5", "unknown form"),
        ("6", "turn without text"),
    ]
    assert rejects[-1].reason == "duplicate"
    assert counts["rejects"] == 5


def test_mixture_one_json_array_is_read_like_lines(room):
    one_set = room.set_of([json.dumps([chat(1), chat(2)], indent=1)])
    _, mixed, _ = room.run(suite="0k", sets=(one_set,))
    assert sorted(conversation.messages[0].content for conversation in mixed) == ["q1", "q2"]


def test_mixture_set_that_is_not_there_or_empty_raises_one_sentence(room, tmp_path):
    with pytest.raises(DataError, match="is empty"):
        room.run(3, suite="0k")
    with pytest.raises(DataError, match="holds no JSON or parquet file"):
        (tmp_path / "folder").mkdir()
        room.run(3, suite="0k", sets=(InstructionSet(name="chat", location=str(tmp_path / "folder")),))
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        room.run(3, suite="0k", sets=(InstructionSet(name="chat", location=str(tmp_path / "nowhere.jsonl")),))


def test_mixture_of_nothing_but_rejects_names_the_first_and_its_reason(room):
    one_set = room.set_of([json.dumps({"messages": [{"role": "user", "content": "only a question"}]})])
    with pytest.raises(DataError, match=r"all 1 conversations were rejected, the first, \S+#1: \w+"):
        room.run(suite="0k", sets=(one_set,))


def test_mixture_started_again_after_a_kill_gives_the_same(room, tmp_path):
    sets = (room.set_of([chat(number) for number in range(9)]),)
    _, first, _ = room.run(5, suite="all", sets=sets)
    left = tmp_path / "out2"
    left.mkdir()
    (left / "conversations.parquet.part").write_bytes(b"half")
    (left / ".conversations.spool").write_bytes(b"half a line")
    (left / ".rejects.jsonl").write_bytes(b'{"id": ')
    _, second, rejects = room.run(5, suite="all", sets=sets)
    assert (second, rejects) == (first, [])
    assert not list(left.glob("*.part"))
