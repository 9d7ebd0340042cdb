"""Single requests to an OpenAI-compatible endpoint through its SDK: no retries, no memory.

Bodies are parsed here and not by the SDK, which takes an HTML page or half a JSON text for a reply.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import openai

from longalign_core.chat_calls import ChatReply, ChatRequest, Endpoint
from longalign_core.chat_faults import MalformedReplyError


class ChatWire:
    """The connections to one endpoint. The key is read from the environment at every request."""

    def __init__(self, endpoint: Endpoint, timeout_seconds: float) -> None:
        """Prepare connections; nothing is sent yet."""

        async def key() -> str:
            return endpoint.api_key()

        # A proxy from the environment must not stand between us and a server on this machine.
        is_local = urlsplit(endpoint.base_url).hostname in ("127.0.0.1", "::1", "localhost")
        self._sdk = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=key,
            max_retries=0,
            timeout=timeout_seconds,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if is_local else None,
        )

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Ask for one reply.

        Raises:
            openai.APIError: The request failed.
            MalformedReplyError: What came back is not a chat completion.
        """
        raw = await self._sdk.chat.completions.with_raw_response.create(
            model=request.model,
            messages=[{"role": message.role, "content": message.content} for message in request.messages],  # type: ignore[misc]
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_tokens,
            seed=openai.omit if request.seed is None else request.seed,
        )
        return _reply_of(_json_object(raw.content), request.model)

    async def model_named(self, model: str) -> str:
        """The id under which the endpoint describes a model; errors as `complete`."""
        raw = await self._sdk.models.with_raw_response.retrieve(model)
        described = _json_object(raw.content).get("id")
        if not isinstance(described, str):
            raise MalformedReplyError("no model description")
        return described

    async def list_models(self) -> frozenset[str]:
        """Ids of the models that the endpoint lists; errors as `complete`."""
        raw = await self._sdk.models.with_raw_response.list()
        entries = _json_object(raw.content).get("data")
        if not isinstance(entries, list):
            raise MalformedReplyError("no list of models")
        return frozenset(str(entry.get("id")) for entry in entries if isinstance(entry, dict))

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        raise MalformedReplyError("not JSON") from None
    if not isinstance(body, dict):
        raise MalformedReplyError("not a JSON object")
    return body


def _reply_of(body: dict[str, Any], asked_model: str) -> ChatReply:
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise MalformedReplyError("no choice with a message")
    content = message.get("content")
    finish_reason = choice.get("finish_reason")
    if content is None and message.get("refusal"):
        finish_reason = "content_filter"
    usage = body.get("usage")
    return ChatReply(
        text=content if isinstance(content, str) else "",
        finish_reason=finish_reason if isinstance(finish_reason, str) else "",
        model=str(body.get("model") or asked_model),
        prompt_tokens=_count(usage, "prompt_tokens"),
        reply_tokens=_count(usage, "completion_tokens"),
        stored=False,
    )


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
