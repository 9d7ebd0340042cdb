"""The response store: what is in it stays, whoever writes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from longalign_core.chat_client.calls import ChatReply, ChatRequest
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.errors import StoreError
from longalign_core.records import Message
from tests.chat_setup import request_of

WRITER = """
import sys
from pathlib import Path
from longalign_core.chat_client.calls import ChatReply
from longalign_core.chat_client.responses import ResponseStore
from tests.chat_setup import request_of

store = ResponseStore(Path(sys.argv[1]))
for number in range(100):
    reply = ChatReply(
        text=sys.argv[2], finish_reason="stop", model="m", prompt_tokens=number, reply_tokens=None, stored=False
    )
    store.put(request_of(f"words {number}"), reply)
    print(number, flush=True)
if sys.argv[3] == "stay":
    sys.stdin.read()
"""
# The form of the file before it had versions, as it was made by `PRAGMA user_version` 0.
OLD_TABLE = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL, model TEXT NOT NULL,
    prompt_tokens INTEGER, reply_tokens INTEGER
) WITHOUT ROWID
"""
# Lone surrogates (also two that escapes would join), NUL, line ends of all kinds, other scripts.
ODD = "a\x00b\ud800c\ud83d\ude00d\u2028e\r\n中文 😀"


def reply_of(text: str) -> ChatReply:
    return ChatReply(text=text, finish_reason="stop", model="m", prompt_tokens=3, reply_tokens=None, stored=False)


def about(document: str, question: str, **changes: object) -> ChatRequest:
    request = request_of(document + question, **changes)
    return replace(request, shared_characters=len(document))


def key_of(number: int) -> str:
    return request_of(f"words {number}").key


def start_writer(path: Path, text: str, ending: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), text, ending],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


def rows_of(path: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def write_old_form(path: Path, rows: list[tuple]) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(OLD_TABLE)
    connection.executemany("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()


def test_response_store_reply_put_is_found_after_reopening(tmp_path):
    path = tmp_path / "new" / "folder" / "replies.sqlite"
    request = request_of("hello")
    full = ChatReply(
        text=ODD,
        finish_reason="odd \udc80",
        model="model \x00",
        prompt_tokens=3,
        reply_tokens=None,
        stored=False,
        cached_tokens=2,
        cache_write_tokens=1,
        batch=True,
    )
    with ResponseStore(path) as store:
        assert store.put(request, full) == full
    with ResponseStore(path) as store:
        assert store.get(request.key) == replace(full, stored=True)
        assert store.get("other") is None
        assert len(store) == 1


def test_response_store_second_reply_to_one_request_gives_back_the_first(tmp_path):
    with ResponseStore(tmp_path / "replies.sqlite") as store:
        assert store.put(request_of("hello"), reply_of("first")).text == "first"
        assert store.put(request_of("hello"), reply_of("second")) == reply_of("first")
        assert len(store) == 1


@pytest.mark.parametrize(
    "request_",
    [
        about("A document.\n\n", "A question?"),
        about(ODD, ODD, seed=3, repeat=2, weights="w", reply_schema='{"type": "object"}', temperature=None),
        about("All of it is shared", ""),
        about("\ud83d", "\ude00 a pair cut in two", task_type="summary", corpus="books", continues=True),
        request_of("Nothing shared"),
        replace(about("Two turns. ", "Why?"), shared_characters=999),
        ChatRequest(
            model="m",
            messages=(
                Message(role="user", content="Document. Question?"),
                Message(role="assistant", content=ODD),
                Message(role="user", content="And?"),
            ),
            temperature=0.5,
            top_p=0.9,
            max_tokens=5,
            purpose="answer",
            shared_characters=10,
        ),
    ],
    ids=["plain", "odd characters", "all shared", "cut pair", "nothing shared", "shared beyond the end", "turns"],
)
def test_request_of_stored_request_is_the_request_with_its_key(tmp_path, request_):
    path = tmp_path / "replies.sqlite"
    with ResponseStore(path) as store:
        store.put(request_, reply_of("words"))
    with ResponseStore(path) as store:
        found = store.request_of(request_.key)
        assert found == request_
        assert found.key == request_.key
        assert store.request_of("other") is None


def test_response_store_document_of_many_requests_is_kept_once(tmp_path):
    path = tmp_path / "replies.sqlite"
    document = "".join(f"Sentence {number} says {number * 7919 % 1000}. " for number in range(8000))
    requests = [about(document, f"Question {number}?") for number in range(50)]
    with ResponseStore(path) as store:
        for request in requests:
            store.put(request, reply_of("words"))
        store.put(about("Another document", "Question 0?"), reply_of("words"))
        assert store.request_of(requests[31].key) == requests[31]
    assert rows_of(path, "SELECT count(*) FROM texts") == [(2,)]
    assert rows_of(path, "SELECT count(*), max(length(request)) < 1000 FROM replies") == [(51, 1)]
    assert path.stat().st_size < len(document)


def test_response_store_damaged_text_is_refused(tmp_path):
    path = tmp_path / "replies.sqlite"
    request = about("A document. ", "A question?")
    with ResponseStore(path) as store:
        store.put(request, reply_of("words"))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE texts SET content = X'00'")
    connection.commit()
    connection.close()
    with ResponseStore(path) as store, pytest.raises(StoreError, match=r"replies\.sqlite is damaged"):
        store.request_of(request.key)


def test_notes_first_of_a_name_stays(tmp_path):
    path = tmp_path / "replies.sqlite"
    with ResponseStore(path) as store:
        assert store.note("draw") is None
        assert store.put_note("draw", ODD) == ODD
        assert store.put_note("draw", "second") == ODD
        assert store.put_note("odd name \udc80", "1") == "1"
    with ResponseStore(path) as store:
        assert store.note("draw") == ODD
        assert store.note("odd name \udc80") == "1"
        assert len(store) == 0


def test_response_store_many_threads_lose_nothing(tmp_path):
    with ResponseStore(tmp_path / "replies.sqlite") as store:

        def write(first: int) -> None:
            for number in range(first, first + 20):
                store.put(request_of(f"words {number}"), reply_of(str(number)))

        threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 100, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store) == 110
        assert [store.get(key_of(number)).text for number in range(110)] == [str(number) for number in range(110)]


@pytest.mark.parametrize("start", ["new file", "old form"])
def test_response_store_two_processes_agree_on_every_key(tmp_path, start):
    path = tmp_path / "replies.sqlite"
    if start == "old form":
        write_old_form(path, [(f"old {number}", "text", "stop", "m", 1, 2) for number in range(500)])
    writers = [start_writer(path, name, "end") for name in ("one", "two")]
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    with ResponseStore(path) as store:
        assert len(store) == (600 if start == "old form" else 100)
        assert all(store.get(key_of(number)).text in ("one", "two") for number in range(100))


def test_response_store_writer_killed_keeps_all_it_reported(tmp_path):
    path = tmp_path / "replies.sqlite"
    writer = start_writer(path, "text", "stay")
    reported = [int(writer.stdout.readline()) for _ in range(50)]
    writer.kill()
    writer.communicate()
    with ResponseStore(path) as store:
        assert all(store.get(key_of(number)) is not None for number in reported)


def test_response_store_file_of_the_old_form_keeps_every_reply(tmp_path):
    path = tmp_path / "replies.sqlite"
    old = [(key_of(number), f"text {number}\x00 中文", "length", "reported", number, None) for number in range(300)]
    write_old_form(path, old)
    for _ in range(2):
        with ResponseStore(path) as store:
            assert len(store) == 300
            for key, text, finish_reason, model, prompt_tokens, reply_tokens in old:
                assert store.get(key) == ChatReply(
                    text=text,
                    finish_reason=finish_reason,
                    model=model,
                    prompt_tokens=prompt_tokens,
                    reply_tokens=reply_tokens,
                    stored=True,
                )
            assert store.request_of(key_of(7)) is None
            assert store.put(request_of("words 7"), reply_of("again")).text == "text 7\x00 中文"
    assert rows_of(path, "SELECT name FROM sqlite_master WHERE name LIKE 'old%'") == []


def test_response_store_of_a_newer_version_is_refused_untouched(tmp_path):
    path = tmp_path / "replies.sqlite"
    with ResponseStore(path) as store:
        store.put(request_of("hello"), reply_of("words"))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="have form 99, this version of LongAlign reads up to 1; update LongAlign"):
        ResponseStore(path)
    assert rows_of(path, "SELECT count(*) FROM replies") == [(1,)]


def test_response_store_table_of_another_kind_is_refused_untouched(tmp_path):
    path = tmp_path / "replies.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE replies (letter TEXT)")
    connection.execute("INSERT INTO replies VALUES ('dear')")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="a table of another kind"):
        ResponseStore(path)
    assert rows_of(path, "SELECT letter FROM replies") == [("dear",)]


def test_response_store_file_that_is_none_says_what_to_do(tmp_path):
    path = tmp_path / "replies.sqlite"
    path.write_bytes(b"no database at all, but long enough to have a header of that size" * 20)
    with pytest.raises(StoreError, match="move the file away"):
        ResponseStore(path)


def test_response_store_folder_under_a_file_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="change the scratch"):
        ResponseStore(tmp_path / "file" / "folder" / "replies.sqlite")
