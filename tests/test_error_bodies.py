"""What providers' error bodies mean, whatever status they come with."""

from __future__ import annotations

import json

import pytest

from longalign_core.chat_client import Endpoint
from longalign_core.chat_client.faults import UNKNOWN_MODEL, Failure, FailureKind, describe_failure, stop_message
from longalign_core.chat_client.wire import HttpError
from tests.fake_chat_server import anthropic_error, error_body

PASSING, CALL, ENDPOINT = FailureKind.PASSING, FailureKind.CALL, FailureKind.ENDPOINT
FLAT = json.dumps(
    {
        "object": "error",
        "message": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
        "type": "BadRequestError",
        "code": 400,
    }
)


def meaning(status: int, content: str) -> tuple[FailureKind, str]:
    failure = describe_failure(HttpError(status, {}, content.encode()), key="the-key", now=0.0)
    return failure.kind, failure.reason


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (400, "invalid_request_error", "messages: at least one message is required", (CALL, "request refused")),
        (401, "authentication_error", "invalid x-api-key", (ENDPOINT, "key refused")),
        (402, "billing_error", "pay", (ENDPOINT, "quota used up")),
        (403, "permission_error", "not yours", (ENDPOINT, "key refused")),
        (404, "not_found_error", "model: m", (ENDPOINT, "unknown model")),
        (413, "request_too_large", "too large", (CALL, "prompt too long")),
        (429, "rate_limit_error", "slower", (PASSING, "rate limited")),
        (500, "api_error", "oh", (PASSING, "server error")),
        (504, "timeout_error", "late", (PASSING, "server error")),
        (529, "overloaded_error", "Overloaded", (PASSING, "overloaded")),
        # Statuses that gateways put in place of the provider's.
        (400, "overloaded_error", "Overloaded", (PASSING, "overloaded")),
        (400, "rate_limit_error", "slower", (PASSING, "rate limited")),
        (400, "authentication_error", "invalid x-api-key", (ENDPOINT, "key refused")),
        (500, "billing_error", "pay", (ENDPOINT, "quota used up")),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API.",
            (ENDPOINT, "quota used up"),
        ),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 208310 tokens > 200000 maximum",
            (CALL, "prompt too long"),
        ),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000",
            (CALL, "prompt too long"),
        ),
        (400, "invalid_request_error", "Output blocked by content filtering policy", (CALL, "content filter")),
        (400, "invalid_request_error", "`top_p` is deprecated for this model.", (ENDPOINT, "setting refused")),
    ],
)
def test_meaning_anthropic_error_is_told_by_its_type_and_words(status, kind, message, expected):
    assert meaning(status, anthropic_error(message, kind)) == expected


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (429, "insufficient_quota", "You exceeded your current quota", (ENDPOINT, "quota used up")),
        (400, "billing_hard_limit_reached", "Billing hard limit has been reached", (ENDPOINT, "quota used up")),
        (400, "context_length_exceeded", "too many tokens", (CALL, "prompt too long")),
        (429, "rate_limit_exceeded", "Rate limit reached for m on tokens per min", (PASSING, "rate limited")),
        (
            429,
            "rate_limit_exceeded",
            "Request too large for m on tokens per min (TPM): Limit 30000, Requested 30601.",
            (CALL, "prompt too long"),
        ),
        (403, "model_not_found", "Project does not have access to model m", (ENDPOINT, "unknown model")),
        (401, "invalid_api_key", "Incorrect API key provided", (ENDPOINT, "key refused")),
        (400, "content_policy_violation", "no", (CALL, "content filter")),
        (
            400,
            "invalid_prompt",
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
            (CALL, "content filter"),
        ),
        (400, "unsupported_value", "'temperature' does not support 0 with this model", (ENDPOINT, "setting refused")),
        (500, None, "the maximum context length of the cache was lost", (PASSING, "server error")),
    ],
)
def test_meaning_openai_error_is_told_by_its_code_and_words(status, code, message, expected):
    assert meaning(status, error_body(message, code)) == expected


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (400, FLAT, (CALL, "prompt too long")),
        (429, "slow down", (PASSING, "rate limited")),
        (502, "<html>Bad gateway</html>", (PASSING, "server error")),
        (400, '["odd"]', (CALL, "request refused")),
        (400, '{"error": "odd"}', (CALL, "request refused")),
        (400, '{"error": {"message": null, "code": null}}', (CALL, "request refused")),
    ],
)
def test_meaning_error_of_another_form_is_told_by_its_status_and_words(status, content, expected):
    assert meaning(status, content) == expected


@pytest.mark.parametrize(
    ("url", "api", "told"),
    [
        (None, "anthropic", "of anthropic does not know model 'm' (HTTP 404); correct the model's name; "),
        ("https://host", "anthropic", "correct the model's name or the URL; "),
        ("https://host", "compatible", "the URL, which usually ends in /v1, does not: add that"),
        ("https://host/v1/", "compatible", "correct the model's name, or the URL, which usually ends in /v1"),
    ],
)
def test_stop_message_unknown_model_says_what_of_the_endpoint_to_correct(url, api, told):
    failure = describe_failure(HttpError(404, {}, b""), key="the-key", now=0.0)
    assert told in stop_message(Endpoint(url, "generator", api), failure, "m")


def test_url_that_goes_on_behind_v1_is_told_to_end_there():
    endpoint = Endpoint("http://127.0.0.1:8000/v1/chat/completions", "generator")
    failure = Failure(kind=FailureKind.ENDPOINT, reason=UNKNOWN_MODEL, detail="")
    assert "leave out /chat/completions" in stop_message(endpoint, failure, "m")
