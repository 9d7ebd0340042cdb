"""Anthropic's Message Batches: all requests in one body, results as one stream of lines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anthropic
import httpx2
from anthropic._decoders.jsonl import AsyncJSONLDecoder
from anthropic.types.messages import MessageBatchIndividualResponse

from longalign_core.chat_client.anthropic_messages import anthropic_sdk, body_of, key_headers, reply_of
from longalign_core.chat_client.batch_wire import (
    CANCELLED,
    EXPIRED,
    BatchStatus,
    Frame,
    Part,
    Phase,
    ResultLine,
    Search,
    batch_errors,
    json_line,
    lines_of,
    parse_line,
)
from longalign_core.chat_client.calls import ChatRequest, Endpoint
from longalign_core.chat_client.faults import MALFORMED, Failure, FailureKind, describe_failure
from longalign_core.chat_client.wire import HttpError, MalformedReplyError, json_object

# "up to 100,000 requests and be up to 256 MB in total size": docs.anthropic.com/en/api/creating-message-batches.
# A custom_id has at most 64 characters (anthropic-sdk-python, issue 984), just what a request's key has.
MAX_REQUESTS = 100_000
MAX_BYTES = 256_000_000
_PATH = "/v1/messages/batches"
_CHUNK_BYTES = 1 << 18
_PAGE = 100
# HTTP statuses of the errors that a result names: anthropic 2.12, types/shared/*_error_object.py and _exceptions.py.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicBatchWire:
    """A `BatchWire` over the Anthropic SDK.

    A batch carries no name of ours. One that was perhaps made is looked for among those made since,
    by its number of requests, and is surely ours only once its results name our requests.
    """

    def __init__(self, endpoint: Endpoint, timeout_seconds: float) -> None:
        """Prepare connections; nothing is sent yet."""
        self.max_requests = MAX_REQUESTS
        self.max_bytes = MAX_BYTES
        self.frame = Frame(b'{"requests":[', b",", b"]}")
        self._endpoint = endpoint
        self._sdk = anthropic_sdk(endpoint, timeout_seconds)

    def line_of(self, request: ChatRequest) -> bytes:
        """A request as it stands in a part's file."""
        # A batch holds one call about a document, so nobody would read the cache that it pays to write.
        plain = replace(request, shared_characters=0)
        return json_line({"custom_id": request.key, "params": body_of(plain, self._endpoint)})

    async def newest(self) -> str | None:
        """Id of the account's newest batch; the list begins with it (anthropic 2.12, resources/messages/batches.py)."""
        async for batch in self._listed(limit=1):
            return str(batch["id"])
        return None

    async def submit(self, part: Part, file: Path) -> str:
        """Send a part's file as it is, a piece at a time: the SDK's own method would hold all of it in memory."""

        async def pieces() -> AsyncIterator[bytes]:
            with file.open("rb") as content:
                while piece := content.read(_CHUNK_BYTES):
                    yield piece

        sizes = {"content-type": "application/json", "content-length": str(file.stat().st_size)}
        headers = {**key_headers(self._endpoint), **sizes}
        with batch_errors(anthropic):
            response = await self._sdk.post(
                _PATH, content=pieces(), cast_to=httpx2.Response, options={"headers": headers}
            )
        return _id_of(json_object(response.content))

    async def find(self, part: Part, settled: frozenset[str], holds: Callable[[str], bool]) -> Search:
        """Look through the batches made since the one that was the newest when the part was sent."""
        unclear: list[str] = []
        async for batch in self._listed(limit=_PAGE):
            if batch["id"] == part.newest:
                break
            counts = batch.get("request_counts")
            total = sum(n for n in counts.values() if isinstance(n, int)) if isinstance(counts, dict) else -1
            if batch["id"] in settled or total != part.num_requests:
                continue
            if batch.get("processing_status") != "ended":
                unclear.append(batch["id"])
            elif await self._is_ours(batch["id"], holds):
                return Search(batch=batch["id"])
        return Search(unclear=tuple(unclear))

    async def status(self, batch: str) -> BatchStatus:
        """How far a batch is."""
        with batch_errors(anthropic):
            raw = await self._sdk.messages.batches.with_raw_response.retrieve(
                batch, extra_headers=key_headers(self._endpoint)
            )
            body = json_object(await raw.read())
        status = body.get("processing_status")
        if status in ("in_progress", "canceling"):
            return BatchStatus(batch=batch, phase=Phase.RUNNING)
        if status == "ended":
            return BatchStatus(batch=batch, phase=Phase.ENDED)
        raise MalformedReplyError("a batch without a known status")

    async def results(self, status: BatchStatus, model: str) -> AsyncIterator[ResultLine]:
        """Lines of the results. The SDK's own reader would end at the first damaged one."""
        async for line in self._lines(status.batch):
            yield self._result_of(line, model)

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    async def _listed(self, limit: int) -> AsyncIterator[dict[str, Any]]:
        after: str | None = None
        while True:
            with batch_errors(anthropic):
                raw = await self._sdk.messages.batches.with_raw_response.list(
                    limit=limit, after_id=after or anthropic.omit, extra_headers=key_headers(self._endpoint)
                )
                page = json_object(await raw.read())
            rows = page.get("data")
            if not isinstance(rows, list):
                raise MalformedReplyError("no list of batches")
            for row in rows:
                yield row | {"id": _id_of(row)}
            if not rows or not page.get("has_more"):
                return
            after = _id_of(rows[-1])

    async def _lines(self, batch: str) -> AsyncIterator[bytes]:
        # Not at the URL that the batch names: the key goes to no other host than the endpoint's.
        with batch_errors(anthropic):
            lines = await self._sdk.get(
                f"{_PATH}/{quote(batch, safe='')}/results",
                cast_to=AsyncJSONLDecoder[MessageBatchIndividualResponse],
                options={"headers": key_headers(self._endpoint)},
                stream=True,
            )
            try:
                async for line in lines_of(lines.http_response.aiter_bytes()):
                    yield line
            finally:
                await lines.close()

    async def _is_ours(self, batch: str, holds: Callable[[str], bool]) -> bool:
        """Whether every readable line of a batch's results names one of our requests, and there is one."""
        seen = False
        async for line in self._lines(batch):
            if (parsed := parse_line(line)) is not None:
                seen = True
                if not holds(parsed[0]):
                    return False
        return seen

    def _result_of(self, line: bytes, model: str) -> ResultLine:
        parsed = parse_line(line)
        result = parsed[1].get("result") if parsed else None
        if parsed is None or not isinstance(result, dict):
            return ResultLine(key=None)
        key, kind = parsed[0], result.get("type")
        if kind == "succeeded" and isinstance(result.get("message"), dict):
            try:
                return ResultLine(key=key, reply=reply_of(result["message"], model))
            except MalformedReplyError as error:
                failure = Failure(kind=FailureKind.PASSING, reason=MALFORMED, detail=str(error))
                return ResultLine(key=key, failure=failure, charged=True)
        if kind in ("expired", "canceled"):
            reason = EXPIRED if kind == "expired" else CANCELLED
            return ResultLine(key=key, failure=Failure(kind=FailureKind.PASSING, reason=reason, detail=str(kind)))
        if kind == "errored":
            return ResultLine(key=key, failure=self._failure(result.get("error")))
        return ResultLine(key=None)

    def _failure(self, body: object) -> Failure:
        inner = body.get("error") if isinstance(body, dict) else None
        kind = str(inner.get("type")) if isinstance(inner, dict) else ""
        error = HttpError(_STATUSES.get(kind, 500), {}, json.dumps(body).encode())
        return describe_failure(error, key=self._endpoint.api_key(), now=0.0)


def _id_of(body: dict[str, Any]) -> str:
    if not isinstance(body.get("id"), str) or not body["id"]:
        raise MalformedReplyError("no id")
    return str(body["id"])
