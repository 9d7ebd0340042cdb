"""Conversation to token ids and target mask, with a model's own chat template or one of ours.

A conversation's text is cut at the control tokens that the template put there, and at both ends of
everything the model is trained to write. What lies between is encoded by itself, so a control token
spelled inside a message is the plain text that it is, the mask is exact, and each answer follows the very
ids of its prompt, which inference encodes alone. Where the tokenizer has a token boundary at these cuts,
the ids are those of the tokenizer over the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from longalign_core.chat_pieces import ControlToken, Piece, cut_into_pieces
from longalign_core.chat_shortening import TokenPlaces, TooLongError, cut_middle
from longalign_core.chat_template import ChatTemplate, ConversationError, RenderedChat
from longalign_core.errors import InputError
from longalign_core.records import Conversation
from longalign_core.text_tokens import UNSPELLED, TextTokens

Shorten = Literal["middle", "right", "drop"]


@dataclass(frozen=True, slots=True)
class EncodedConversation:
    """A conversation as the model sees it.

    Attributes:
        token_ids: Shape (n,).
        is_target: Shape (n,). True where the model is trained to predict the token.
        cut_tokens: Tokens taken out so that it fits.
    """

    token_ids: NDArray[np.uint32]
    is_target: NDArray[np.bool_]
    cut_tokens: int


class NoTargetError(ConversationError):
    """No token of a conversation is the assistant's."""

    reason = "no target"


@dataclass(frozen=True, slots=True)
class _CutChat:
    """A conversation that can be encoded, and its pieces."""

    chat: RenderedChat
    pieces: list[Piece]


class ChatFormat:
    """Encodes conversations for one tokenizer and one chat template.

    Args:
        tokenizer: A transformers tokenizer with a Rust backend.
        template: Name of one of our templates; None for the tokenizer's own.

    Attributes:
        tokenizer: The tokenizer.
        vocabulary: Token ids are below it.

    Raises:
        InputError: The tokenizer has no Rust backend, or there is no template that it can use.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"{type(tokenizer).__name__} is no fast tokenizer; give encoding.tokenizer a folder with tokenizer.json"
            )
        self.tokenizer = tokenizer
        self.vocabulary = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self.template = ChatTemplate(tokenizer, template)
        self._controls = {
            added.content: ControlToken(number, added.lstrip, added.rstrip)
            for number, added in tokenizer.added_tokens_decoder.items()
            if added.content in self.template.controls
        }
        self._tokens = TextTokens(backend, self.template.controls)

    @classmethod
    def load(cls, folder: Path, template: str | None = None) -> ChatFormat:
        """Load the tokenizer in a folder.

        Raises:
            InputError: The folder holds no tokenizer that can be used, or there is no template.
        """
        from transformers import AutoTokenizer  # takes seconds, which planning a run must not

        ggufs = sorted(folder.glob("*.gguf"))
        options = {"gguf_file": ggufs[0].name} if ggufs and not (folder / "tokenizer.json").is_file() else {}
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, **options)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, ImportError) as error:  # whatever is damaged
            raise InputError(
                f"encoding.tokenizer: {folder.name} holds no tokenizer that transformers can load; "
                "give a folder with tokenizer.json and tokenizer_config.json"
            ) from error
        return cls(tokenizer, template)

    def encode(
        self, conversations: Sequence[Conversation], max_tokens: int, shorten: Shorten = "middle"
    ) -> list[EncodedConversation | ConversationError]:
        """Encode conversations, in their order.

        Args:
            conversations: As many as the memory holds in tokens.
            max_tokens: Longest sequence.
            shorten: What one too long loses: the middle of its longest user message, its end, or
                its place.

        Returns:
            For each conversation its encoding, or why it has none.
        """
        cut = [self._cut(conversation) for conversation in conversations]
        encodable = [chat for chat in cut if isinstance(chat, _CutChat)]
        # All texts at once, so that one long document does not leave the other cores idle.
        texts = [
            (chat.chat.text[piece.start : piece.end], piece.after)
            for chat in encodable
            for piece in chat.pieces
            if piece.control is None
        ]
        found = iter(self._tokens.encode([text for text, _ in texts], [after for _, after in texts]))
        results: list[EncodedConversation | ConversationError] = []
        for conversation, chat in zip(conversations, cut, strict=True):
            if isinstance(chat, ConversationError):
                results.append(chat)
                continue
            ids = [next(found) if piece.control is None else [piece.control] for piece in chat.pieces]
            try:
                results.append(self._join(chat, ids, max_tokens, shorten))
            except ConversationError as error:
                results.append(type(error)(f"conversation {conversation.id}: {error}"))
        return results

    def _cut(self, conversation: Conversation) -> _CutChat | ConversationError:
        try:
            chat = self.template.render(conversation)
        except ConversationError as error:
            return error
        if not chat.targets:
            return NoTargetError(
                f"conversation {conversation.id}: every assistant turn is empty; there is nothing to train on"
            )
        if UNSPELLED in chat.text:
            return ConversationError(
                f"conversation {conversation.id}: a message holds U+10FFFE, which is no character; take it out"
            )
        return _CutChat(chat, cut_into_pieces(chat, self._controls))

    def _join(self, chat: _CutChat, ids: list[list[int]], max_tokens: int, shorten: Shorten) -> EncodedConversation:
        lengths = [len(piece) for piece in ids]
        token_ids = np.fromiter(chain.from_iterable(ids), dtype=np.uint32, count=sum(lengths))
        is_target = np.repeat([piece.is_target for piece in chat.pieces], lengths)
        is_target[:1] = False  # nothing stands before it to predict it from
        excess = len(token_ids) - max_tokens
        if excess <= 0:
            return EncodedConversation(token_ids, is_target, 0)
        if shorten == "drop":
            raise TooLongError(f"it has {len(token_ids)} tokens, encoding.max_tokens is {max_tokens}")
        if shorten == "right":
            start, end = max_tokens, len(token_ids)
        else:
            start, end = cut_middle(chat.chat, self._places(chat), excess)
        kept = np.r_[0:start, end : len(token_ids)]
        if not is_target[kept].any():
            raise NoTargetError(f"cut to {max_tokens} tokens nothing of the answer is left; shorten the middle instead")
        return EncodedConversation(token_ids[kept], is_target[kept], end - start)

    def _places(self, chat: _CutChat) -> TokenPlaces:
        spans: list[tuple[int, int]] = []
        for piece in chat.pieces:
            if piece.control is None:
                found = self._tokens.spans(chat.chat.text[piece.start : piece.end], piece.after)
                spans += [(piece.start + start, piece.start + end) for start, end in found]
            else:
                spans.append((piece.start, piece.end))
        return TokenPlaces(spans)
