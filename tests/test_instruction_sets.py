"""Instruction sets in the forms and files they are published in."""

from __future__ import annotations

import io
import json
import random

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longalign_core.corpora.markup.chat_html import chat_text
from longalign_core.errors import DataError
from tests.mixture_setup import PACKED, Room, chat


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


def turns_of(mixed):
    return sorted([(one.role, one.content) for one in conversation.messages] for conversation in mixed)


def sharegpt(name: str, *turns: tuple[str, str], **fields: object) -> dict:
    return {"id": name, "conversations": [{"from": who, "value": text} for who, text in turns], **fields}


def group(room, name="chat"):
    return {one["name"]: one for one in orjson.loads((room.out / "mixture.json").read_bytes())["groups"]}[name]


def parquet(rows: list[dict], **options) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "json", "json.gz", "json.zst"])
def test_instruction_set_lines_and_arrays_in_any_packing_give_the_same(room, form):
    rows = [chat(number) for number in range(5)]
    whole = [json.dumps(rows, indent=1)] if form.startswith("json.") or form == "json" else rows
    _, mixed, rejects = room.run(suite="0k", sets=(room.set_of(whole, form=form),))
    assert turns_of(mixed) == [[("user", f"q{n}"), ("assistant", f"a{n}")] for n in range(5)]
    assert rejects == []


def test_instruction_set_parquet_is_read_in_every_form(room):
    alpaca = [{"instruction": "do", "input": "", "output": "done", "file": "x"}]
    room.file_of(parquet([chat(1), chat(2)], row_group_size=1), "set/a.parquet")
    room.file_of(parquet(alpaca), "set/b.parquet")
    one_set = room.file_of(parquet([sharegpt("x", ("human", "h"), ("gpt", "g"))]), "set/c.pq")
    folder = one_set.model_copy(update={"location": str(room.folder / "set")})
    _, mixed, rejects = room.run(suite="0k", sets=(folder,))
    assert [turns[0][1] for turns in turns_of(mixed)] == ["do", "h", "q1", "q2"]
    assert rejects == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"instruction": "Below is a paper.\n…\nWhat does it say?", "output": "Much.", "file": "paper.pdf"},
            ["Below is a paper.\n…\nWhat does it say?", "Much."],
        ),
        ({"instruction": "i", "context": "c", "response": "r", "category": "qa"}, ["i\n\nc", "r"]),
        (
            {"instruction": "now", "input": "in", "output": "out", "system": "s", "history": [["q", "a"]]},
            ["s", "q", "a", "now\n\nin", "out"],
        ),
        ({"prompt": "p", "completion": "c"}, ["p", "c"]),
        (
            {"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "c"}]},
            ["p", "c"],
        ),
        ({"conversations": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}, ["u", "a"]),
    ],
)
def test_instruction_set_row_of_each_form_becomes_its_turns(room, row, expected):
    _, (conversation,), _ = room.run(suite="0k", sets=(room.set_of([row]),))
    assert [one.content for one in conversation.messages] == expected


def test_instruction_set_rows_of_no_documented_form_are_rejected(room):
    rows = [{"prompt": "p", "response": "r"}, {"instruction": "i"}, {"prompt": 3, "completion": "c"}, chat(1)]
    rows.append({"instruction": "i", "output": "o", "history": [["alone"]]})
    _, mixed, rejects = room.run(suite="0k", sets=(room.set_of(rows),))
    assert len(mixed) == 1
    assert [one.reason for one in rejects] == ["unknown form", "unknown form", "turn without text", "unknown form"]


def test_instruction_set_split_conversations_stay_apart_unless_joined(room):
    rows = [
        sharegpt("abc_4", ("human", "q3"), ("gpt", "a3"), model=""),
        sharegpt("other", ("human", "o"), ("gpt", "p")),
        sharegpt("abc_0", ("human", "q1"), ("gpt", "a1"), ("human", "q2"), ("gpt", ""), model="gpt-4"),
        sharegpt("abc_8", ("human", "q5"), ("gpt", "a5")),
        sharegpt("count_0", ("human", "c0"), ("gpt", "d0"), ("human", "cut")),
        sharegpt("count_1", ("gpt", "d1")),
        sharegpt("late_7", ("gpt", "no question"), ("human", "x"), ("gpt", "y")),
    ]
    _, mixed, rejects = room.run(suite="0k", sets=(room.set_of(rows),))
    assert turns_of(mixed) == [
        [("user", "c0"), ("assistant", "d0")],
        [("user", "o"), ("assistant", "p")],
        [("user", "q1"), ("assistant", "a1")],
        [("user", "q3"), ("assistant", "a3")],
        [("user", "q5"), ("assistant", "a5")],
    ]
    assert [one.reason for one in rejects] == ["does not alternate", "does not alternate"]
    _, joined, rejects = room.run(suite="0k", sets=(room.set_of(rows, split_conversations="joined"),))
    assert [[text for _, text in turns] for turns in turns_of(joined)] == [
        ["c0", "d0", "cut", "d1"], ["o", "p"], ["q1", "a1", "q3", "a3"], ["q5", "a5"],
    ]  # fmt: skip
    assert {one.messages[0].content: one.model for one in joined}["q1"] == "gpt-4"
    assert [(one.id, one.reason) for one in rejects] == [("chat:late_7", "does not alternate")]
    assert (group(room)["parts_joined"], group(room)["empty_turns_dropped"]) == (2, 1)


def test_instruction_set_joined_parts_do_not_depend_on_their_order(room):
    rows = [
        sharegpt(f"x{n}_{2 * part}", ("human", f"q{n}{part}"), ("gpt", f"a{n}{part}"))
        for n in range(5)
        for part in range(4)
    ]
    _, first, _ = room.run(suite="0k", sets=(room.set_of(rows, split_conversations="joined"),))
    random.Random(0).shuffle(rows)
    _, second, _ = room.run(suite="0k", sets=(room.set_of(rows, split_conversations="joined"),))
    assert first == second
    assert [len(one.messages) for one in first] == [8] * 5


def test_instruction_set_html_turns_become_markdown(room):
    page = (
        '<div class="markdown prose w-full break-words dark:prose-invert light"><p>1 / 2</p>'
        "<p>Use <code>len</code>:</p>"
        '<pre><div class="bg-black rounded-md mb-4"><div class="flex"><span>python</span>'
        "<button>Copy code</button></div>"
        '<div class="p-4 overflow-y-auto"><code class="!whitespace-pre hljs language-python">n = len(x)\n'
        "if n &lt; 2:\n    pass\n</code></div></div></pre><ol><li><p>first</p></li><li><p>second</p></li></ol></div>"
    )
    asked = "Why does <b>this</b>\n  keep its\tspaces?"
    row = sharegpt("x", ("human", asked), ("gpt", page))
    _, (conversation,), _ = room.run(suite="0k", sets=(room.set_of([row], markup="html"),))
    assert conversation.messages[0].content == asked
    assert conversation.messages[1].content == (
        "Use `len`:\n\n```python\nn = len(x)\nif n < 2:\n    pass\n```\n\n1. first\n2. second"
    )
    _, (plain,), _ = room.run(suite="0k", sets=(room.set_of([row]),))
    assert plain.messages[1].content == page


def test_chat_text_empty_wrapping_is_an_empty_turn():
    assert chat_text('<div class="markdown"><p></p></div>') == ""


def test_mixture_duplicates_across_sets_and_long_ones_are_rejected_with_the_place(room):
    rows = [
        chat(1),
        {"messages": [{"role": "user", "content": "document 0"}, {"role": "assistant", "content": "answer"}]},
    ]
    sets = (room.set_of([chat(1), chat(1)], "first"), room.set_of(rows, "second"))
    counts, mixed, rejects = room.run(1, suite="all", sets=sets)
    assert sorted(one.source for one in mixed) == ["books", "first"]
    assert [(one.source, one.reason, one.detail) for one in rejects] == [
        ("first", "duplicate", "the same conversation came before in first"),
        ("second", "duplicate", "the same conversation came before in first"),
        ("second", "duplicate", "the same conversation came before in long"),
    ]
    assert counts["rejects: duplicate"] == 3


@pytest.mark.parametrize("form", ["json", "json.gz", "jsonl.zst", "parquet"])
def test_instruction_set_that_breaks_off_keeps_what_came_before(room, form):
    rows = [{"instruction": f"{number}", "output": random.Random(number).randbytes(200).hex()} for number in range(800)]
    if form == "parquet":
        data = parquet(rows, row_group_size=100, write_page_checksum=True)
        data = data[:2_000] + bytes(50) + data[2_050:]
    else:
        text = json.dumps(rows) if form.startswith("json.") or form == "json" else "\n".join(map(json.dumps, rows))
        data = PACKED[form.rpartition(".")[2]](text.encode())
        data = data[: len(data) * 3 // 4]
    _, mixed, rejects = room.run(suite="0k", sets=(room.file_of(data, f"a.{form}"),))
    assert 400 < len(mixed) < 800
    asked = {row["instruction"]: row["output"] for row in rows}
    assert all(one.messages[1].content == asked[one.messages[0].content] for one in mixed)
    reasons = {one.reason for one in rejects}
    assert reasons == ({"damaged row group"} if form == "parquet" else {"truncated file"})


def test_instruction_set_one_object_over_lines_is_one_reject(room):
    other = room.file_of(json.dumps({"data": [chat(1)]}, indent=1).encode(), "set/object.json")
    room.file_of(json.dumps(chat(2)).encode(), "set/line.json")
    _, mixed, rejects = room.run(suite="0k", sets=(other.model_copy(update={"location": str(room.folder / "set")}),))
    assert (len(mixed), [one.reason for one in rejects]) == (1, ["one object over several lines"])


def test_instruction_set_files_are_chosen_by_pattern(room):
    room.file_of(json.dumps(chat(1)).encode(), "set/raw/one.jsonl")
    one_set = room.file_of(json.dumps(chat(2)).encode(), "set/clean/two.jsonl")
    one_set = one_set.model_copy(update={"location": str(room.folder / "set"), "files": ("clean/*.jsonl",)})
    _, mixed, _ = room.run(suite="0k", sets=(one_set,))
    assert turns_of(mixed) == [[("user", "q2"), ("assistant", "a2")]]
    with pytest.raises(DataError, match=r"no file of .* matches none\*; its files are clean/two.jsonl, raw/one.jsonl"):
        room.run(suite="0k", sets=(one_set.model_copy(update={"files": ("none*",)}),))


def test_instruction_set_bytes_that_are_not_utf8_reject_their_row_alone(room):
    rows = [json.dumps(chat(number)).encode() for number in range(3)]
    rows[1] = rows[1].replace(b"a1", b"a\xff1")
    for file_name, data in (("a.json", b"[" + b",".join(rows) + b"]"), ("a.jsonl", b"\n".join(rows))):
        _, mixed, rejects = room.run(suite="0k", sets=(room.file_of(data, file_name),))
        assert [turns[0][1] for turns in turns_of(mixed)] == ["q0", "q2"]
        assert [one.id for one in rejects] == [f"chat:{file_name}#2"]
