"""Whether a prompt fits the generator's window, before it is sent."""

from __future__ import annotations

from collections.abc import Sequence

from longalign_core.records import Document, Message

PROMPT_TOO_LONG = "prompt too long"
"""The reason of the chat client too, where the endpoint says so."""
# Text with fewer bytes a token is rare in any language, so this rather counts too many tokens.
_BYTES_PER_TOKEN = 3
# Room for the chat template around a turn.
_TEMPLATE_TOKENS = 32


def estimate_tokens(documents: Sequence[Document], shared_characters: int, messages: Sequence[Message]) -> int:
    """Tokens of a prompt whose first message begins with documents, rather too many than too few.

    A document counts as `select` counted it, where it did; all else by its bytes.

    Args:
        documents: Those in the prompt.
        shared_characters: Length of the part of the first message that holds them, headings included.
        messages: The prompt.
    """
    texts = [one.text for one in documents]
    first = messages[0].content
    # Headings and the blank lines between documents: the part less the texts themselves. A heading is
    # counted at four bytes a character, so that it never counts too little.
    heading_bytes = 4 * (shared_characters - sum(map(len, texts)))
    counted = sum(one.num_tokens for one in documents if one.num_tokens is not None)
    uncounted = sum(_num_bytes(one.text) for one in documents if one.num_tokens is None)
    words = _num_bytes(first[shared_characters:]) + sum(_num_bytes(one.content) for one in messages[1:])
    return counted + -(-(uncounted + heading_bytes + words) // _BYTES_PER_TOKEN) + _TEMPLATE_TOKENS * len(messages)


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
