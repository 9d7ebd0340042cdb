"""Chat Completions: OpenAI's own, and every compatible server's (vLLM, llama.cpp, gateways)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import openai

from longalign_core.chat_client.calls import PLACEHOLDER_KEY, ChatReply, ChatRequest, Endpoint
from longalign_core.chat_client.wire import (
    Arrival,
    MalformedReplyError,
    http_options,
    json_content,
    json_object,
    refuse_unsendable,
    sdk_errors,
    token_count,
)

OPENAI_URL = "https://api.openai.com/v1"  # As in the SDK (openai/lib/_client_auth.py), which would let a variable win.


class OpenAIWire:
    """What the wires of OpenAI's two interfaces have in common."""

    def __init__(self, endpoint: Endpoint, timeout_seconds: float) -> None:
        """Prepare connections; nothing is sent yet."""
        self._endpoint = endpoint
        self._sdk = openai_sdk(endpoint, timeout_seconds)

    async def model_named(self, model: str) -> str:
        """The id under which the endpoint describes a model."""
        with sdk_errors(openai):
            raw = await self._sdk.models.with_raw_response.retrieve(model)
        described = json_object(raw.content).get("id")
        if not isinstance(described, str):
            raise MalformedReplyError("no model description")
        return described

    async def list_models(self) -> frozenset[str]:
        """Ids of the models that the endpoint lists."""
        with sdk_errors(openai):
            raw = await self._sdk.models.with_raw_response.list()
        entries = json_object(raw.content).get("data")
        if not isinstance(entries, list):
            raise MalformedReplyError("no list of models")
        return frozenset(str(entry.get("id")) for entry in entries if isinstance(entry, dict))

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()


class OpenAIChatWire(OpenAIWire):
    """A `Wire` over the OpenAI SDK."""

    async def complete(self, request: ChatRequest) -> Arrival:
        """Ask for one reply; errors as `Wire` has them."""
        body = body_of(request, self._endpoint)
        with sdk_errors(openai):
            raw = await self._sdk.post("/chat/completions", **json_content(body))
        return Arrival(reply_of(json_object(raw.content), request.model), dict(raw.headers))


def openai_sdk(endpoint: Endpoint, timeout_seconds: float) -> openai.AsyncOpenAI:
    """OpenAI's SDK for an endpoint, without retries of its own; the key is read at every request."""
    url = endpoint.base_url or OPENAI_URL
    options = http_options(url, lambda: {"Authorization": f"Bearer {endpoint.api_key()}"}, "OPENAI_CUSTOM_HEADERS")
    sdk = openai.AsyncOpenAI(
        base_url=url,
        api_key=PLACEHOLDER_KEY,  # So that the SDK looks for none; ours takes its place on the way out.
        max_retries=0,
        timeout=timeout_seconds,
        http_client=openai.DefaultAsyncHttpxClient(**options),
    )
    if endpoint.api == "compatible":
        sdk.organization = sdk.project = None
    return sdk


def body_of(request: ChatRequest, endpoint: Endpoint) -> dict[str, Any]:
    """A request as the interface takes it, for single calls and for batches alike.

    What only OpenAI itself understands (`max_completion_tokens`, `prompt_cache_key`) goes only there.

    Raises:
        CallFailedError: The messages cannot be sent.
    """
    refuse_unsendable(request)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
    }
    is_openai = endpoint.api == "openai"
    body["max_completion_tokens" if is_openai else "max_tokens"] = request.max_tokens
    body |= openai_sampling(request) if is_openai else _explicit_sampling(request)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.reply_schema is not None:
        schema = {"name": "reply", "strict": True, "schema": json.loads(request.reply_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if is_openai and (cache_key := prompt_cache_key(request)):
        body["prompt_cache_key"] = cache_key
    return body


def openai_sampling(request: ChatRequest) -> dict[str, float]:
    """Temperature and top_p for both of OpenAI's interfaces: only what is not 1.

    That is the default ("Only the default (1) value is supported", some models reply), and others refuse the word.
    """
    given = {"temperature": request.temperature, "top_p": request.top_p}
    return {name: value for name, value in given.items() if value is not None and value != 1.0}


def _explicit_sampling(request: ChatRequest) -> dict[str, float]:
    """The same for compatible servers, which may take other defaults from the model's files."""
    given = {"temperature": request.temperature, "top_p": request.top_p}
    return {name: value for name, value in given.items() if value is not None}


def prompt_cache_key(request: ChatRequest) -> str | None:
    """The same for all calls about one document, so that OpenAI sends them to where it is cached."""
    if not request.shared_characters:
        return None
    shared = request.messages[0].content[: request.shared_characters]
    return hashlib.sha256(shared.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def reply_of(body: dict[str, Any], asked_model: str) -> ChatReply:
    """The reply in a response's body.

    Raises:
        MalformedReplyError: There is none.
    """
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise MalformedReplyError("no choice with a message")
    content = message.get("content")
    finish_reason = choice.get("finish_reason")
    if finish_reason == "error":  # A gateway's word for a provider that failed in the middle.
        raise MalformedReplyError("a reply that was broken off")
    if not content and message.get("refusal"):
        finish_reason = "content_filter"
    usage = body.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    return ChatReply(
        text=content if isinstance(content, str) else "",
        finish_reason=finish_reason if isinstance(finish_reason, str) else "",
        model=str(body.get("model") or asked_model),
        prompt_tokens=token_count(usage, "prompt_tokens"),
        reply_tokens=token_count(usage, "completion_tokens"),
        cached_tokens=token_count(details, "cached_tokens"),
        cache_write_tokens=token_count(details, "cache_write_tokens"),
        stored=False,
    )
