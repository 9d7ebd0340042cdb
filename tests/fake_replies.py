"""What model servers send: replies and errors of each interface, as JSON; and what they were asked, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Body = dict[str, Any]
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


def turns_of(body: Body) -> list[tuple[str, str]]:
    """Role and text of each message of a request, whichever interface it is for; Anthropic's system text first."""
    listed = body.get("messages", body.get("input", []))
    system = [("system", _text(body["system"]))] if body.get("system") else []
    return system + [(message["role"], _text(message["content"])) for message in listed]


def reply_body(path: str, text: str, body: Body) -> str:
    """A text as the interface with this path replies."""
    return {CHAT: completion, RESPONSES: response, MESSAGES: message}[path](text, body=body)


def completion(
    text: str | None,
    *,
    body: Body | None = None,
    finish_reason: str = "stop",
    usage: Body | None = None,
) -> str:
    """The JSON of one chat completion. Usage counts whitespace words of `body`'s messages unless given."""
    prompt_words, reply_words = _words(text, body)
    counted = {
        "prompt_tokens": prompt_words,
        "completion_tokens": reply_words,
        "total_tokens": prompt_words + reply_words,
    }
    return json.dumps(
        {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 0,
            "model": (body or {}).get("model", "fake-model"),
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            ],
            "usage": counted if usage is None else usage,
        }
    )


def response(
    text: str | None,
    *,
    body: Body | None = None,
    status: str = "completed",
    incomplete: str | None = None,
    refusal: str | None = None,
    error: Body | None = None,
    usage: Body | None = None,
) -> str:
    """The JSON of one of OpenAI's responses, with a reasoning item before the message, as reasoning models send it."""
    prompt_words, reply_words = _words(text, body)
    content: list[Body] = [] if text is None else [{"type": "output_text", "text": text, "annotations": []}]
    content += [] if refusal is None else [{"type": "refusal", "refusal": refusal}]
    counted = {
        "input_tokens": prompt_words,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": reply_words,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_words + reply_words,
    }
    return json.dumps(
        {
            "id": "resp-fake",
            "object": "response",
            "created_at": 0,
            "status": status,
            "incomplete_details": None if incomplete is None else {"reason": incomplete},
            "error": error,
            "model": (body or {}).get("model", "fake-model"),
            "output": [
                {"type": "reasoning", "id": "rs-fake", "summary": [{"type": "summary_text", "text": "thought"}]},
                {"type": "message", "id": "msg-fake", "role": "assistant", "status": status, "content": content},
            ],
            "usage": counted if usage is None else usage,
        }
    )


def message(
    text: str | None,
    *,
    body: Body | None = None,
    stop_reason: str | None = "end_turn",
    blocks: list[Body] | None = None,
    usage: Body | None = None,
) -> str:
    """The JSON of one of Anthropic's messages; `blocks` in place of the one with the text."""
    prompt_words, reply_words = _words(text, body)
    counted = {
        "input_tokens": prompt_words,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": reply_words,
    }
    return json.dumps(
        {
            "id": "msg-fake",
            "type": "message",
            "role": "assistant",
            "model": (body or {}).get("model", "fake-model"),
            "content": [{"type": "text", "text": text}] if blocks is None else blocks,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": counted if usage is None else usage,
        }
    )


def error_body(message: str, code: str | None = None, kind: str = "invalid_request_error") -> str:
    """The JSON of an error as OpenAI's servers send it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def anthropic_error(message: str, kind: str = "invalid_request_error") -> str:
    """The JSON of an error as Anthropic's servers send it."""
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req-fake"})


def model_entry(name: str, *, is_anthropic: bool) -> Body:
    """A model as the interface describes it."""
    if is_anthropic:
        return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
    return {"id": name, "object": "model", "created": 0, "owned_by": "tests"}


def model_list(names: list[str], *, is_anthropic: bool, query: Mapping[str, list[str]]) -> Body:
    """The page of models that the interface lists: all with OpenAI, 20 unless told with Anthropic."""
    size = int(query.get("limit", ["20"])[0]) if is_anthropic else len(names)
    page = [model_entry(name, is_anthropic=is_anthropic) for name in names[:size]]
    if not is_anthropic:
        return {"object": "list", "data": page}
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return {"data": page, "has_more": len(names) > size, **ends}


def _text(content: str | list[Body]) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def _words(text: str | None, body: Body | None) -> tuple[int, int]:
    return sum(len(words.split()) for _, words in turns_of(body or {})), len((text or "").split())
