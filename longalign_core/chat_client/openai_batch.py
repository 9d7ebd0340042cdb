"""OpenAI's batches: a file of requests is uploaded, a batch made of it, and its results are files too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import openai

from longalign_core.chat_client.batch_wire import (
    CANCELLED,
    EXPIRED,
    NO_OUTCOME,
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
from longalign_core.chat_client.calls import ChatReply, ChatRequest, Endpoint
from longalign_core.chat_client.faults import MALFORMED, Failure, FailureKind, describe_failure
from longalign_core.chat_client.openai_chat import openai_sdk
from longalign_core.chat_client.wire import HttpError, MalformedReplyError, json_object

# Both limits stand in openai 3.54, types/batch_create_params.py; a megabyte is taken for the smaller of its meanings.
MAX_REQUESTS = 50_000
MAX_BYTES = 200_000_000
# The code of a batch that is more than the account may have waiting: openai-python, issue 2084.
_TOO_MANY_TOKENS = "token_limit_exceeded"
# Metadata keys may have 64 characters and values 512: types/batch_create_params.py.
_PART = "longalign_part"
_RUNNING = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
# What a line says that was not reached in time: OpenAI's batch guide.
_LINE_EXPIRED = "batch_expired"
_LINE_CANCELLED = "batch_cancelled"


class OpenAIBatchWire:
    """A `BatchWire` over the OpenAI SDK, for Chat Completions and for Responses."""

    def __init__(self, endpoint: Endpoint, timeout_seconds: float) -> None:
        """Prepare connections; nothing is sent yet."""
        self.max_requests = MAX_REQUESTS
        self.max_bytes = MAX_BYTES
        self.frame = Frame(b"", b"\n", b"\n")
        self._endpoint = endpoint
        self._sdk = openai_sdk(endpoint, timeout_seconds)
        self._path: Literal["/v1/responses", "/v1/chat/completions"] = (
            "/v1/responses" if endpoint.api == "openai-responses" else "/v1/chat/completions"
        )

    def line_of(self, request: ChatRequest) -> bytes:
        """A request as it stands in a part's file."""
        if self._endpoint.api == "openai-responses":
            from longalign_core.chat_client.openai_responses import body_of
        else:
            from longalign_core.chat_client.openai_chat import body_of
        body = body_of(request, self._endpoint)
        return json_line({"custom_id": request.key, "method": "POST", "url": self._path, "body": body})

    async def newest(self) -> str | None:
        """Id of the account's newest batch."""
        with batch_errors(openai):
            raw = await self._sdk.batches.with_raw_response.list(limit=1)
        listed = _listed(json_object(raw.content))
        return str(listed[0].get("id")) if listed else None

    async def submit(self, part: Part, file: Path) -> str:
        """Upload a part, have a batch made of it that carries the part's name, and give the batch's id."""
        with batch_errors(openai):
            with file.open("rb") as content:
                uploaded = await self._sdk.files.with_raw_response.create(
                    file=(f"{part.name}.jsonl", content), purpose="batch"
                )
            raw = await self._sdk.batches.with_raw_response.create(
                input_file_id=_id_of(json_object(uploaded.content)),
                endpoint=self._path,
                completion_window="24h",
                metadata={_PART: part.name},
            )
        return _id_of(json_object(raw.content))

    async def find(self, part: Part, settled: frozenset[str], holds: Callable[[str], bool]) -> Search:
        """Look for the batch that carries the part's name, through the whole list: its order is not documented."""
        after: str | None = None
        while True:
            with batch_errors(openai):
                raw = await self._sdk.batches.with_raw_response.list(limit=100, after=after or openai.omit)
            page = json_object(raw.content)
            listed = _listed(page)
            for batch in listed:
                metadata = batch.get("metadata")
                # One that failed was never begun, so the part may have been submitted again since.
                is_begun = batch.get("status") != "failed"
                if is_begun and isinstance(metadata, dict) and metadata.get(_PART) == part.name:
                    return Search(batch=_id_of(batch))
            if not page.get("has_more") or not listed:
                return Search()
            after = _id_of(listed[-1])

    async def status(self, batch: str) -> BatchStatus:
        """How far a batch is."""
        with batch_errors(openai):
            raw = await self._sdk.batches.with_raw_response.retrieve(batch)
        body = json_object(raw.content)
        status = body.get("status")
        if status in _RUNNING:
            return BatchStatus(batch=batch, phase=Phase.RUNNING)
        files = tuple(str(body[name]) for name in ("output_file_id", "error_file_id") if body.get(name))
        if status == "failed" and not files:
            codes, detail = self._errors_of(body)
            return BatchStatus(
                batch=batch, phase=Phase.FAILED, detail=detail, too_many_tokens=_TOO_MANY_TOKENS in codes
            )
        if status in ("completed", "expired", "cancelled", "failed"):
            missing = {
                "expired": Failure(kind=FailureKind.PASSING, reason=EXPIRED, detail="not reached within 24 hours"),
                "cancelled": Failure(kind=FailureKind.PASSING, reason=CANCELLED, detail="cancelled at the provider"),
            }.get(str(status), NO_OUTCOME)
            return BatchStatus(batch=batch, phase=Phase.ENDED, results=files, missing=missing)
        raise MalformedReplyError("a batch without a known status")

    async def results(self, status: BatchStatus, model: str) -> AsyncIterator[ResultLine]:
        """Lines of the output file, then of the error file."""
        for file in status.results:
            with batch_errors(openai):
                async with self._sdk.files.with_streaming_response.content(file) as response:
                    async for line in lines_of(response.iter_bytes()):
                        yield self._result_of(line, model)

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    def _result_of(self, line: bytes, model: str) -> ResultLine:
        parsed = parse_line(line)
        if parsed is None:
            return ResultLine(key=None)
        key, row = parsed
        if isinstance(row.get("error"), dict):
            code, message = str(row["error"].get("code") or ""), str(row["error"].get("message") or "")
            if code in (_LINE_EXPIRED, _LINE_CANCELLED):
                reason = EXPIRED if code == _LINE_EXPIRED else CANCELLED
                return ResultLine(key=key, failure=Failure(kind=FailureKind.PASSING, reason=reason, detail=code))
            # The line was not worked on; what its code says decides, as of an answer with status 500.
            return ResultLine(key=key, failure=self._failure(500, {"code": code, "message": message}))
        response = row.get("response")
        status = response.get("status_code") if isinstance(response, dict) else None
        body = response.get("body") if isinstance(response, dict) else None
        if not isinstance(status, int) or not isinstance(body, dict):
            return ResultLine(key=None)
        if status != 200:
            return ResultLine(key=key, failure=self._failure(status, body))
        try:
            return ResultLine(key=key, reply=self._reply_of(body, model))
        except MalformedReplyError as error:
            failure = Failure(kind=FailureKind.PASSING, reason=MALFORMED, detail=str(error))
            return ResultLine(key=key, failure=failure, charged=True)

    def _reply_of(self, body: dict[str, Any], model: str) -> ChatReply:
        if self._endpoint.api == "openai-responses":
            from longalign_core.chat_client.openai_responses import reply_of
        else:
            from longalign_core.chat_client.openai_chat import reply_of
        return reply_of(body, model)

    def _failure(self, status: int, body: dict[str, Any]) -> Failure:
        error = HttpError(status, {}, json.dumps(body).encode())
        return describe_failure(error, key=self._endpoint.api_key(), now=0.0)

    def _errors_of(self, body: dict[str, Any]) -> tuple[set[str], str]:
        """Codes, and the first error for people, of a batch that failed."""
        errors = body.get("errors")
        rows = errors.get("data") if isinstance(errors, dict) else None
        known = [row for row in rows or () if isinstance(row, dict)]
        told = "no reason given"
        if known:
            line = f", line {known[0]['line']}" if known[0].get("line") is not None else ""
            told = f"{known[0].get('code') or 'error'}{line}: {known[0].get('message') or ''}"[:300]
        return {str(row.get("code")) for row in known}, told.replace(self._endpoint.api_key(), "***")


def _listed(page: dict[str, Any]) -> list[dict[str, Any]]:
    rows = page.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MalformedReplyError("no list of batches")
    return rows


def _id_of(body: dict[str, Any]) -> str:
    if not isinstance(body.get("id"), str) or not body["id"]:
        raise MalformedReplyError("no id")
    return str(body["id"])
