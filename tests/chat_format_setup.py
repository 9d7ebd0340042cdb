"""What tests of the chat format share: a conversation, its encoding, and what of it is trained on."""

from __future__ import annotations

import numpy as np

from longalign_core.chat_format import ChatFormat, EncodedConversation
from longalign_core.errors import DataError
from longalign_core.records import Conversation, Message


def chat(*contents: str, system: str | None = None, id: str = "c1") -> Conversation:
    turns = [Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(contents)]
    first = [Message(role="system", content=system)] if system is not None else []
    return Conversation(id=id, messages=(*first, *turns), source="books", task_type="chat", language="en")


def encode(chat_format: ChatFormat, conversation: Conversation, max_tokens: int = 10_000, **options):
    (result,) = chat_format.encode([conversation], max_tokens, **options)
    if isinstance(result, DataError):
        raise result
    assert len(result.token_ids) == len(result.is_target)
    assert not result.is_target[0]
    return result


def trained_texts(tokenizer, encoded: EncodedConversation) -> list[str]:
    """What each run of target tokens says."""
    edges = np.flatnonzero(np.diff(encoded.is_target, prepend=False, append=False)).reshape(-1, 2)
    return [tokenizer.decode(encoded.token_ids[start:end]) for start, end in edges]


def whole_ids(tokenizer, conversation: Conversation) -> list[int]:
    messages = [{"role": message.role, "content": message.content} for message in conversation.messages]
    return tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
