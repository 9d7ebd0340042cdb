"""OpenAI's Responses interface."""

from __future__ import annotations

import json
from typing import Any

import openai

from longalign_core.chat_client.calls import ChatReply, ChatRequest, Endpoint
from longalign_core.chat_client.openai_chat import (
    OpenAIWire,
    openai_sampling,
    prompt_cache_key,
)
from longalign_core.chat_client.wire import (
    Arrival,
    HttpError,
    MalformedReplyError,
    json_content,
    json_object,
    refuse_unsendable,
    sdk_errors,
    token_count,
)

_FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}
# A response that failed comes with status 200; the status that the same fault has elsewhere. Codes as in the SDK's
# types/responses/response_error.py; the others there say that the request itself is at fault.
_STATUS_OF_FAILURE = {"server_error": 500, "vector_store_timeout": 504, "rate_limit_exceeded": 429}


class OpenAIResponsesWire(OpenAIWire):
    """A `Wire` over the OpenAI SDK."""

    async def complete(self, request: ChatRequest) -> Arrival:
        """Ask for one reply; errors as `Wire` has them."""
        body = body_of(request, self._endpoint)
        with sdk_errors(openai):
            raw = await self._sdk.post("/responses", **json_content(body))
        return Arrival(reply_of(json_object(raw.content), request.model), dict(raw.headers))


def body_of(request: ChatRequest, endpoint: Endpoint) -> dict[str, Any]:
    """A request as the interface takes it, for single calls and for batches alike.

    The interface takes no seed: `ChatRequest.seed` only tells calls apart here.

    Raises:
        CallFailedError: The messages cannot be sent.
    """
    refuse_unsendable(request)
    body: dict[str, Any] = {
        "model": request.model,
        "input": [{"role": message.role, "content": message.content} for message in request.messages],
        "max_output_tokens": request.max_tokens,
        # Nothing refers to a response later, so documents need not stay on the provider's disks.
        "store": False,
    }
    body |= openai_sampling(request)
    if request.reply_schema is not None:
        schema = json.loads(request.reply_schema)
        body["text"] = {"format": {"type": "json_schema", "name": "reply", "strict": True, "schema": schema}}
    if cache_key := prompt_cache_key(request):
        body["prompt_cache_key"] = cache_key
    return body


def reply_of(body: dict[str, Any], asked_model: str) -> ChatReply:
    """The reply in a response's body. Reasoning is left out.

    Raises:
        HttpError: The response says that it failed; with the status that the fault has in other interfaces.
        MalformedReplyError: It holds no reply.
    """
    status, output = body.get("status"), body.get("output")
    if status == "failed":
        raise _failure(body.get("error"))
    if status not in ("completed", "incomplete") or not isinstance(output, list):
        raise MalformedReplyError("no response that ended")
    parts = [
        part
        for item in output
        if isinstance(item, dict) and item.get("type") == "message" and isinstance(item.get("content"), list)
        for part in item["content"]
        if isinstance(part, dict)
    ]
    text = "".join(str(part.get("text") or "") for part in parts if part.get("type") == "output_text")
    finish_reason = "stop"
    if status == "incomplete":
        details = body.get("incomplete_details")
        why = str(details.get("reason") or "") if isinstance(details, dict) else ""
        finish_reason = _FINISH_REASONS.get(why, why or "incomplete")
    elif not text and any(part.get("type") == "refusal" for part in parts):
        finish_reason = "content_filter"
    usage = body.get("usage")
    details = usage.get("input_tokens_details") if isinstance(usage, dict) else None
    return ChatReply(
        text=text,
        finish_reason=finish_reason,
        model=str(body.get("model") or asked_model),
        prompt_tokens=token_count(usage, "input_tokens"),
        reply_tokens=token_count(usage, "output_tokens"),
        cached_tokens=token_count(details, "cached_tokens"),
        cache_write_tokens=token_count(details, "cache_write_tokens"),
        stored=False,
    )


def _failure(error: object) -> HttpError:
    code = error.get("code") if isinstance(error, dict) else None
    status = _STATUS_OF_FAILURE.get(str(code), 400) if code else 500
    return HttpError(status, {}, json.dumps({"error": error}).encode())
