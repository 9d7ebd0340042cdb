"""The response store: what is in it stays, whoever writes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from longalign_core.chat_client.calls import ChatReply
from longalign_core.chat_client.responses import ResponseStore
from longalign_core.errors import StoreError

WRITER = """
import sys
from pathlib import Path
from longalign_core.chat_client.calls import ChatReply
from longalign_core.chat_client.responses import ResponseStore

store = ResponseStore(Path(sys.argv[1]))
for number in range(100):
    reply = ChatReply(
        text=sys.argv[2], finish_reason="stop", model="m", prompt_tokens=number, reply_tokens=None, stored=False
    )
    store.put(f"key {number}", reply)
    print(number, flush=True)
if sys.argv[3] == "stay":
    sys.stdin.read()
"""


def reply_of(text: str) -> ChatReply:
    return ChatReply(text=text, finish_reason="stop", model="m", prompt_tokens=3, reply_tokens=None, stored=False)


def start_writer(path: Path, text: str, ending: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), text, ending],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


def test_response_store_reply_put_is_found_after_reopening(tmp_path):
    path = tmp_path / "new" / "folder" / "replies.sqlite"
    with ResponseStore(path) as store:
        store.put("key", reply_of("words\n中文 \x00 end"))
    with ResponseStore(path) as store:
        found = store.get("key")
        assert found is not None
        assert (found.text, found.prompt_tokens, found.reply_tokens, found.stored) == (
            "words\n中文 \x00 end",
            3,
            None,
            True,
        )
        assert store.get("other") is None
        assert len(store) == 1


def test_response_store_second_reply_to_one_key_gives_back_the_first(tmp_path):
    with ResponseStore(tmp_path / "replies.sqlite") as store:
        assert store.put("key", reply_of("first")).text == "first"
        assert store.put("key", reply_of("second")).text == "first"
        assert len(store) == 1


def test_response_store_many_threads_lose_nothing(tmp_path):
    with ResponseStore(tmp_path / "replies.sqlite") as store:

        def write(first: int) -> None:
            for number in range(first, first + 20):
                store.put(f"key {number}", reply_of(str(number)))

        threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 100, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store) == 110
        assert all(store.get(f"key {number}") is not None for number in range(110))


def test_response_store_two_processes_agree_on_every_key(tmp_path):
    path = tmp_path / "replies.sqlite"
    writers = [start_writer(path, name, "end") for name in ("one", "two")]
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    with ResponseStore(path) as store:
        assert len(store) == 100
        assert all(store.get(f"key {number}").text in ("one", "two") for number in range(100))


def test_response_store_writer_killed_keeps_all_it_reported(tmp_path):
    path = tmp_path / "replies.sqlite"
    writer = start_writer(path, "text", "stay")
    reported = [int(writer.stdout.readline()) for _ in range(50)]
    writer.kill()
    writer.communicate()
    with ResponseStore(path) as store:
        assert all(store.get(f"key {number}") is not None for number in reported)


def test_response_store_file_that_is_none_says_what_to_do(tmp_path):
    path = tmp_path / "replies.sqlite"
    path.write_bytes(b"no database at all, but long enough to have a header of that size" * 20)
    with pytest.raises(StoreError, match="move the file away"):
        ResponseStore(path)


def test_response_store_folder_under_a_file_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="change the scratch"):
        ResponseStore(tmp_path / "file" / "folder" / "replies.sqlite")
