"""What is asked of a model, what comes back, and where to ask: values without behaviour of their own."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from longalign_core.config.credentials import refuse_secret_in_url
from longalign_core.errors import EndpointError, InputError, LongAlignError
from longalign_core.records import Message

Api = Literal["compatible", "openai", "openai-responses", "anthropic"]
"""Interfaces: Chat Completions of any server, of OpenAI itself, OpenAI's Responses, Anthropic's Messages."""
PLACEHOLDER_KEY = "not-needed"


class CallFailedError(LongAlignError):
    """One call was given up. Other calls may well succeed.

    Attributes:
        reason: A short fixed phrase, to count by.
        detail: What happened, for people; never a prompt or a key.
        passing: Whether the same call may succeed another time, so that its failure says nothing of
            the request and must not enter a product.
    """

    def __init__(self, reason: str, detail: str, passing: bool) -> None:
        super().__init__(reason, detail, passing)
        self.reason = reason
        self.detail = detail
        self.passing = passing

    def __str__(self) -> str:
        return f"a model call was given up ({self.reason}): {self.detail}"


def given_up_error(reasons: Mapping[str, Sequence[str]]) -> EndpointError:
    """What work ends with that asked everything and got some calls given up for passing reasons.

    Args:
        reasons: By role, why each call was given up.
    """
    num_calls = sum(len(of_role) for of_role in reasons.values())
    why = "; ".join(
        f"{role}: " + ", ".join(f"{reason} {count}" for reason, count in sorted(Counter(of_role).items()))
        for role, of_role in reasons.items()
        if of_role
    )
    calls = "1 model call was" if num_calls == 1 else f"{num_calls} model calls were"
    return EndpointError(f"{calls} given up ({why}); every reply that came is kept: run again to ask only what is left")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, the interface it speaks, and the role that its model plays.

    Attributes:
        base_url: Without credentials; of an OpenAI-compatible server it usually ends in /v1. None is
            the provider's own address, as its SDK knows it.
        role: "generator", "judge" or "candidate"; decides which key is sent.
        api: The interface.
    """

    base_url: str | None
    role: str
    api: Api = "compatible"

    def __post_init__(self) -> None:
        try:
            refuse_secret_in_url(self.base_url or "", f"the endpoint of {self.role!r}")
        except ValueError as error:
            raise InputError(str(error)) from None

    @property
    def place(self) -> str:
        """The server, for people."""
        return self.base_url or f"of {self.api.partition('-')[0]}"

    @property
    def key_variables(self) -> tuple[str, str]:
        """Environment variables that may hold the key; the first that is set counts."""
        providers = "ANTHROPIC_API_KEY" if self.api == "anthropic" else "OPENAI_API_KEY"
        return (f"LONGALIGN_{self.role.upper()}_API_KEY", providers)

    @property
    def has_key(self) -> bool:
        """Whether the environment holds a key for it."""
        return any(os.environ.get(variable, "").strip() for variable in self.key_variables)

    def api_key(self) -> str:
        """The key as the environment holds it now, or a placeholder for servers that want none.

        Raises:
            EndpointError: The variable holds characters that no HTTP header can carry.
        """
        for variable in self.key_variables:
            if key := os.environ.get(variable, "").strip():
                if not (key.isascii() and key.isprintable()):
                    raise EndpointError(
                        f"the key in {variable} holds characters other than printable ASCII; copy it again"
                    )
                return key
        return PLACEHOLDER_KEY


class _Addressed:
    """Room for a content address beside the fields of a dataclass: no copy and no stored form has it."""

    __slots__ = ("_key",)
    _key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(_Addressed):
    """One question to one model.

    Attributes:
        model: Name the endpoint knows the model by.
        messages: Turns so far; the last is the user's.
        temperature: 0 is greedy; None leaves it out, for models that take none.
        top_p: Nucleus sampling mass; 1 is all of it.
        max_tokens: Longest reply, in tokens.
        purpose: What the call is for, in logs, reports and the ledger; not part of the key.
        task_type: The same, of the conversation it is for; empty where there is none.
        corpus: The same, of the document it is about; empty where there is none.
        shared_characters: So many leading characters of the first message are a text that other calls
            begin with too (a document): providers are told, so that they read it once, and the response
            store keeps it once. Not part of the key.
        continues: Whether an earlier call with the same beginning was just answered. Such calls go first,
            while the provider still remembers. Not part of the key.
        reply_schema: JSON schema, as JSON text, that the reply must follow; None for free text.
        repeat: Tells apart calls that are asked several times on purpose.
        seed: Passed to the endpoint; None leaves it out.
        weights: Fingerprint of the weights behind the name, for a local model; never sent. With other
            weights under the same name, stored replies do not count.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float | None
    top_p: float
    max_tokens: int
    purpose: str
    task_type: str = ""
    corpus: str = ""
    shared_characters: int = 0
    continues: bool = False
    reply_schema: str | None = None
    repeat: int = 0
    seed: int | None = None
    weights: str | None = None

    @property
    def key(self) -> str:
        """Content address: sha256 over canonical JSON of all that decides the reply, 64 hex digits."""
        try:
            return self._key
        except AttributeError:
            # Kept, for the text is long and several ask for it.
            object.__setattr__(self, "_key", self._content_address())
            return self._key

    def _content_address(self) -> str:
        content = {
            "model": self.model,
            "messages": [[message.role, message.content] for message in self.messages],
            "temperature": None if self.temperature is None else float(self.temperature),
            "top_p": float(self.top_p),
            "max_tokens": self.max_tokens,
            "repeat": self.repeat,
            "seed": self.seed,
        }
        if self.weights is not None:
            content["weights"] = self.weights
        if self.reply_schema is not None:
            content["reply_schema"] = self.reply_schema
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """What a model replied.

    Attributes:
        text: Its words; empty when it gave none.
        finish_reason: "stop", "length" (cut at max_tokens), "content_filter", or the endpoint's own word.
        model: The model's name as the endpoint reported it.
        prompt_tokens: As the endpoint counted them, cached ones included; None when it did not say.
        reply_tokens: The same of the reply.
        stored: Whether it came from the response store, so nothing was asked.
        cached_tokens: Of the prompt's, those read from the provider's cache; None when it did not say.
        cache_write_tokens: Of the prompt's, those that were written to that cache at a price of their own.
        batch: Whether it came through the provider's batch interface, at that price.
    """

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int | None
    reply_tokens: int | None
    stored: bool
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    batch: bool = False


class Spending(Protocol):
    """What stands between a request and the wire: the budget of the product that the calls are for.

    Every request that is sent has a ticket, and after a try that may be charged a further one for the tries to come.
    """

    async def admit(self, request: ChatRequest) -> str:
        """Wait until the call surely fits into what is left, and give its ticket.

        Raises:
            BudgetError: What is left does not allow it, and no call under way can give any back.
        """

    def settle(self, ticket: str, reply: ChatReply) -> None:
        """The reply came, with what it used. Called once the reply is kept."""

    def abandon(self, ticket: str, *, sent: bool) -> None:
        """No reply came. With `sent`, a try reached the provider and may be charged though nobody says how much."""
