"""What the fake batch server says, in both providers' forms."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]
EXPIRED, CANCELLED, LOST = "<expired>", "<cancelled>", "<lost>"


@dataclass(frozen=True)
class Refused:
    """A request within a batch that ended in an error."""

    status: int
    body: Body


@dataclass
class FakeBatch:
    """A batch as the server knows it."""

    id: str
    provider: str
    rows: dict[str, Body]
    metadata: Body
    endpoint: str = ""
    status: str = "in_progress"
    output: bytes | None = None
    errors: bytes | None = None
    reasons: list[Body] = field(default_factory=list)


def words_of(body: Body) -> str:
    """The last message of a request, in whichever interface."""
    messages = body.get("messages", body.get("input"))
    content = messages[-1]["content"]
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def openai_body(endpoint: str, row: Body, words: str) -> Body:
    if endpoint == "/v1/responses":
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": words}]}
        usage = {"input_tokens": 7, "output_tokens": 3}
        return {"id": "resp", "model": row["model"], "status": "completed", "output": [message], "usage": usage}
    choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "c", "model": row["model"], "choices": [choice], "usage": usage}


def anthropic_result(row: Body, outcome: str | Refused) -> Body:
    if isinstance(outcome, Refused):
        return {"type": "errored", "error": outcome.body}
    if outcome in (EXPIRED, CANCELLED):
        return {"type": "expired" if outcome == EXPIRED else "canceled"}
    message = {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "model": row["model"],
        "content": [{"type": "text", "text": outcome}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
    return {"type": "succeeded", "message": message}


def described(batch: FakeBatch) -> Body:
    if batch.provider == "anthropic":
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if batch.status == "ended" else "processing"] = len(batch.rows)
        return {"id": batch.id, "type": "message_batch", "processing_status": batch.status, "request_counts": counts}
    described = {"id": batch.id, "object": "batch", "status": batch.status, "metadata": batch.metadata}
    described["output_file_id"] = f"output-of-{batch.id}" if batch.output else None
    described["error_file_id"] = f"errors-of-{batch.id}" if batch.errors else None
    described["errors"] = {"object": "list", "data": batch.reasons} if batch.reasons else None
    return described


def json_lines(rows: list[Body]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
