"""The fake server as a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.fake_chat_server import FakeChatServer, generic_reply

ROOT = Path(__file__).resolve().parent.parent


def test_fake_chat_server_process_serves_logs_and_ends(tmp_path):
    log = tmp_path / "requests.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fake_chat_server", "--port", "0", "--log", str(log)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        url = process.stdout.readline().strip()
        bodies = [
            {"model": "any", "messages": [{"role": "user", "content": content}]}
            for content in ('A text.\n\nAsk five questions, numbered "1: ".', "Rate it as [[rating]].", "Hello")
        ]
        replies = [
            httpx.post(f"{url}/chat/completions", json=body).json()["choices"][0]["message"]["content"]
            for body in bodies
        ]
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0
    assert [line[:3] for line in replies[0].splitlines()] == ["1: ", "2: ", "3: ", "4: ", "5: "]
    assert re.search(r"\[\[7\]\]", replies[1])
    assert replies[2]
    assert [json.loads(line) for line in log.read_text().splitlines()] == bodies


def test_generic_reply_is_the_same_over_every_interface():
    turns = [{"role": "user", "content": "Hello"}]
    asked = {
        "chat/completions": {"model": "any", "messages": turns},
        "responses": {"model": "any", "input": turns},
        "messages": {
            "model": "any",
            "max_tokens": 9,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}
            ],
        },
    }
    with FakeChatServer(generic_reply) as server:
        replies = {path: httpx.post(f"{server.url}/{path}", json=body).json() for path, body in asked.items()}
    texts = {
        replies["chat/completions"]["choices"][0]["message"]["content"],
        replies["responses"]["output"][-1]["content"][0]["text"],
        replies["messages"]["content"][0]["text"],
    }
    assert texts == {generic_reply(asked["chat/completions"])}
