"""Conversation to token ids and target mask, with a model's own chat template.

The ids are those of the tokenizer over the whole text, wherever a token boundary stands at each end
of what the model is trained to write. Elsewhere the text is cut there first, as it is at inference,
where the generation prompt is encoded alone. A control token spelled inside a message is cut in two,
so it is encoded as the plain text that it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from longalign_core.chat_template import ChatTemplate, ConversationError, RenderedChat, Span
from longalign_core.errors import InputError
from longalign_core.records import Conversation

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


class TooLongError(ConversationError):
    """A conversation does not fit, and may not or cannot be shortened."""

    reason = "too long"


class NoTargetError(ConversationError):
    """No token of a conversation is the assistant's."""

    reason = "no target"


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Ids of a text and the characters each stands for.

    Attributes:
        span: Start and end character of a token, by its place. Ends never fall.
    """

    ids: NDArray[np.uint32]
    span: Callable[[int], tuple[int, int]]

    def before(self, character: int) -> int:
        """How many tokens end at or before a character."""
        return bisect_right(range(len(self.ids)), character, key=lambda place: self.span(place)[1])

    def straddles(self, character: int) -> bool:
        """Whether a token begins before a character and ends after it."""
        place = self.before(character)
        return place < len(self.ids) and self.span(place)[0] < character

    def splits_character(self, place: int) -> bool:
        """Whether the token at a place goes on with a character that the one before began."""
        return 0 < place < len(self.ids) and self.span(place)[0] < self.span(place - 1)[1]


class ChatFormat:
    """Encodes conversations for one tokenizer and one chat template.

    Args:
        tokenizer: A transformers tokenizer with a Rust backend.
        template: Name of one of our templates; None for the tokenizer's own.

    Attributes:
        vocabulary: Token ids are below it.

    Raises:
        InputError: The tokenizer has no Rust backend, or there is no template.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError(
                f"{type(tokenizer).__name__} is no fast tokenizer; give encoding.tokenizer a folder with tokenizer.json"
            )
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.vocabulary = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self.template = ChatTemplate(tokenizer, template)
        added = tokenizer.added_tokens_decoder
        controls = [number for number, token in added.items() if token.content in self.template.controls]
        self._control_ids = np.array(controls, dtype=np.uint32)
        # Some tokenizers put a space before whatever they are given. A control token in front stops that.
        self._anchor = next(
            (token.content for token in added.values() if token.special and not token.rstrip and not token.lstrip), ""
        )

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
        except (OSError, ValueError) as error:
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
        chats: list[RenderedChat | ConversationError] = []
        for conversation in conversations:
            try:
                chats.append(self.template.render(conversation))
            except ConversationError as error:
                chats.append(error)
        texts = [chat.text for chat in chats if isinstance(chat, RenderedChat)]
        encodings = iter(self._backend.encode_batch(texts, add_special_tokens=False))
        results: list[EncodedConversation | ConversationError] = []
        for conversation, chat in zip(conversations, chats, strict=True):
            if isinstance(chat, ConversationError):
                results.append(chat)
                continue
            encoding = next(encodings)
            tokens = _Tokens(np.array(encoding.ids, dtype=np.uint32), encoding.token_to_chars)
            try:
                results.append(self._finish(chat, tokens, max_tokens, shorten))
            except ConversationError as error:
                results.append(type(error)(f"conversation {conversation.id}: {error}"))
        return results

    def _finish(self, chat: RenderedChat, tokens: _Tokens, max_tokens: int, shorten: Shorten) -> EncodedConversation:
        if not chat.targets:
            raise NoTargetError("every assistant turn is empty; there is nothing to train on")
        edges = [edge for span in chat.targets for edge in (span.start, span.end)]
        if self._num_controls(tokens) != chat.num_controls or any(map(tokens.straddles, edges)):
            tokens = self._encode_in_pieces(chat, edges)
        if self._num_controls(tokens) != chat.num_controls:
            raise ConversationError("a message spells a control token in a way that cannot be encoded as plain text")
        is_target = np.zeros(len(tokens.ids), dtype=np.bool_)
        for span in chat.targets:
            is_target[tokens.before(span.start) : tokens.before(span.end)] = True
        kept = _kept(chat, tokens, max_tokens, shorten)
        token_ids, is_target = tokens.ids[kept], is_target[kept]
        if not is_target.any():
            raise NoTargetError(f"cut to {max_tokens} tokens nothing of the answer is left; shorten the middle instead")
        return EncodedConversation(token_ids, is_target, len(tokens.ids) - len(token_ids))

    def _num_controls(self, tokens: _Tokens) -> int:
        return int(np.isin(tokens.ids, self._control_ids).sum())

    def _encode_in_pieces(self, chat: RenderedChat, edges: list[int]) -> _Tokens:
        cuts = {0, len(chat.text), *edges}
        for _, content in chat.contents:
            position = content.start
            # One spelling may begin inside another, so the search goes on behind the first character.
            while match := self.template.control_pattern.search(chat.text, position, content.end):
                position = match.start() + 1
                cuts.add(position)
        bounds = sorted(cuts)
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for start, end in pairwise(bounds):
            anchor = self._anchor if start else ""
            encoding = self._backend.encode(anchor + chat.text[start:end], add_special_tokens=False)
            skipped = 1 if anchor else 0
            shift = start - len(anchor)
            ids += encoding.ids[skipped:]
            spans += [(first + shift, last + shift) for first, last in encoding.offsets[skipped:]]
        return _Tokens(np.array(ids, dtype=np.uint32), spans.__getitem__)


def _kept(chat: RenderedChat, tokens: _Tokens, max_tokens: int, shorten: Shorten) -> NDArray[np.int64]:
    """Places of the tokens that stay, in order."""
    places = np.arange(len(tokens.ids))
    excess = len(places) - max_tokens
    if excess <= 0:
        return places
    if shorten == "drop":
        raise TooLongError(f"it has {len(places)} tokens, encoding.max_tokens is {max_tokens}")
    if shorten == "right":
        return places[:max_tokens]
    head_end, tail_start = _cut_middle(chat, tokens, excess)
    return np.concatenate([places[:head_end], places[tail_start:]])


def _cut_middle(chat: RenderedChat, tokens: _Tokens, excess: int) -> tuple[int, int]:
    """First and last token, the last not included, to leave out of the longest user message.

    What follows its last blank line (or line break) is the question: it stays whole where it fits.
    """
    user_spans = [span for role, span in chat.contents if role == "user"]
    ranges = [_inside(tokens, span) for span in user_spans]
    longest = max(range(len(ranges)), key=lambda number: ranges[number][1] - ranges[number][0])
    (start, end), span = ranges[longest], user_spans[longest]
    room = end - start - excess
    if room < 0:
        raise TooLongError(
            f"it is {excess} tokens too long, and its longest user message has {end - start}; "
            "raise encoding.max_tokens or leave it out"
        )
    content = chat.text[span.start : span.end].rstrip()
    mark = content.rfind("\n\n" if "\n\n" in content else "\n")
    question = end - max(start, tokens.before(span.start + mark + 1)) if mark >= 0 else 0
    tail = max(room // 2, question) if question <= room else room // 2
    head_end, tail_start = start + room - tail, end - tail
    while tokens.splits_character(head_end):
        head_end -= 1
    while tokens.splits_character(tail_start):
        tail_start += 1
    return head_end, tail_start


def _inside(tokens: _Tokens, span: Span) -> tuple[int, int]:
    """Range of the tokens that lie inside a span entirely."""
    start = tokens.before(span.start)
    if tokens.straddles(span.start):
        start += 1
    return start, max(start, tokens.before(span.end))
