"""Anthropic's Messages: the provider's own, and gateways that speak it."""

from __future__ import annotations

import json
from typing import Any

import anthropic

from longalign_core.chat_client.calls import PLACEHOLDER_KEY, ChatReply, ChatRequest, Endpoint
from longalign_core.chat_client.wire import (
    Arrival,
    HttpError,
    MalformedReplyError,
    http_options,
    json_content,
    json_object,
    refuse_unsendable,
    sdk_errors,
    token_count,
)
from longalign_core.errors import InputError
from longalign_core.records import Message

ANTHROPIC_URL = "https://api.anthropic.com"  # As in the SDK (anthropic/_client.py), which would let a variable win.
# The SDK lists 20 models unless told; this is the most it allows (types/model_list_params.py).
_MODELS_A_PAGE = 1000
# Words of the SDK's types/stop_reason.py; others are handed on as they are.
_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


class AnthropicMessagesWire:
    """A `Wire` over the Anthropic SDK."""

    def __init__(self, endpoint: Endpoint, timeout_seconds: float) -> None:
        """Prepare connections; nothing is sent yet."""
        self._endpoint = endpoint
        self._sdk = anthropic_sdk(endpoint, timeout_seconds)

    async def complete(self, request: ChatRequest) -> Arrival:
        """Ask for one reply; errors as `Wire` has them."""
        body = body_of(request, self._endpoint)
        with sdk_errors(anthropic):
            raw = await self._sdk.post("/v1/messages", **json_content(body))
        return Arrival(reply_of(json_object(raw.content), request.model), dict(raw.headers))

    async def model_named(self, model: str) -> str:
        """The id under which the endpoint describes a model."""
        with sdk_errors(anthropic):
            raw = await self._sdk.models.with_raw_response.retrieve(model)
        described = json_object(await raw.read())
        if not isinstance(described.get("id"), str):
            raise MalformedReplyError("no model description")
        if described.get("lifecycle") == "retired":  # Still described, but calls that name it fail.
            body = {"type": "error", "error": {"type": "not_found_error", "message": "this model is retired"}}
            raise HttpError(404, dict(raw.headers), json.dumps(body).encode())
        return str(described["id"])

    async def list_models(self) -> frozenset[str]:
        """Ids of the models that the endpoint lists."""
        with sdk_errors(anthropic):
            raw = await self._sdk.models.with_raw_response.list(limit=_MODELS_A_PAGE)
        entries = json_object(await raw.read()).get("data")
        if not isinstance(entries, list):
            raise MalformedReplyError("no list of models")
        return frozenset(str(entry.get("id")) for entry in entries if isinstance(entry, dict))

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()


def anthropic_sdk(endpoint: Endpoint, timeout_seconds: float) -> anthropic.AsyncAnthropic:
    """Anthropic's SDK for an endpoint, without retries of its own; the key is read at every request."""
    # The SDK adds /v1 itself; an address that has it, as those of OpenAI's interfaces do, means the same.
    url = (endpoint.base_url or ANTHROPIC_URL).rstrip("/").removesuffix("/v1")
    options = http_options(url, lambda: key_headers(endpoint), "ANTHROPIC_CUSTOM_HEADERS")
    return anthropic.AsyncAnthropic(
        base_url=url,
        api_key=PLACEHOLDER_KEY,  # So that the SDK looks for no key, token or profile; ours takes its place.
        max_retries=0,
        timeout=timeout_seconds,
        http_client=anthropic.DefaultAsyncHttpxClient(**options),
    )


def key_headers(endpoint: Endpoint) -> dict[str, str]:
    """The key as the environment holds it now. What `anthropic_sdk` gives sends it by itself.

    The SDK has it in Authorization. Gateways get it in X-Api-Key too, which was the provider's own way before, and is
    the only one that some know.
    """
    key = endpoint.api_key()
    headers = {"Authorization": f"Bearer {key}"}
    return headers if endpoint.base_url is None else {**headers, "X-Api-Key": key}


def body_of(request: ChatRequest, endpoint: Endpoint) -> dict[str, Any]:
    """A request as the interface takes it, for single calls and for batches alike.

    The interface takes no seed: `ChatRequest.seed` only tells calls apart here.

    Raises:
        CallFailedError: The messages cannot be sent.
        InputError: The sampling settings are such that no model of this interface takes them.
    """
    refuse_unsendable(request)
    contents = [
        (message.role, _content(message, request.shared_characters if number == 0 else 0))
        for number, message in enumerate(request.messages)
    ]
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": [{"role": role, "content": content} for role, content in contents if role != "system"],
    }
    if system := [block for role, content in contents if role == "system" for block in content]:
        body["system"] = system
    body |= _sampling(request)
    if request.reply_schema is not None:
        schema = json.loads(request.reply_schema)
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return body


def _content(message: Message, shared_characters: int) -> list[dict[str, Any]]:
    """Text blocks of a message; what other calls begin with too is one of its own, for the provider to remember.

    A block of white space alone is refused, as is the mark on one, and a cut text would not be what was asked:
    where a split would leave such a block the text stays whole, without the mark.
    """
    shared, rest = message.content[:shared_characters], message.content[shared_characters:]
    if not shared.strip() or (rest and not rest.strip()):
        return [{"type": "text", "text": message.content}]
    blocks: list[dict[str, Any]] = [{"type": "text", "text": shared, "cache_control": {"type": "ephemeral"}}]
    return [*blocks, {"type": "text", "text": rest}] if rest else blocks


def _sampling(request: ChatRequest) -> dict[str, float]:
    """The one of temperature and top_p that is not the default: models take one of them at most, newer ones none."""
    is_default = request.temperature in (None, 1.0)
    if request.top_p == 1.0:
        return {} if is_default or request.temperature is None else {"temperature": request.temperature}
    if not is_default:
        raise InputError(
            f"temperature {request.temperature:g} and top_p {request.top_p:g} are set for {request.model!r}, but "
            "models of Anthropic take one of them at most; set top_p or temperature to 1 in the recipe"
        )
    return {"top_p": request.top_p}


def reply_of(body: dict[str, Any], asked_model: str) -> ChatReply:
    """The reply in a message's body: its text blocks joined; thinking is left out.

    Raises:
        MalformedReplyError: There is none.
    """
    content, stop_reason = body.get("content"), body.get("stop_reason")
    if not isinstance(content, list) or not isinstance(stop_reason, str):
        raise MalformedReplyError("no message that ended")
    blocks = [block for block in content if isinstance(block, dict) and block.get("type") == "text"]
    usage = body.get("usage")
    uncached = token_count(usage, "input_tokens")
    read = token_count(usage, "cache_read_input_tokens")
    written = token_count(usage, "cache_creation_input_tokens")
    return ChatReply(
        text="".join(str(block.get("text") or "") for block in blocks),
        finish_reason=_FINISH_REASONS.get(stop_reason, stop_reason),
        model=str(body.get("model") or asked_model),
        # The provider counts what it read from and wrote to its cache apart.
        prompt_tokens=None if uncached is None else uncached + (read or 0) + (written or 0),
        reply_tokens=token_count(usage, "output_tokens"),
        cached_tokens=read,
        cache_write_tokens=written,
        stored=False,
    )
