"""A conversation as the text a chat template makes of it, with the exact place of every message.

The template is rendered with a placeholder for each message, never with a user's text, so what it
puts around the messages is known by construction and nothing a text contains can pass for it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from longalign_core.errors import DataError, InputError
from longalign_core.named_templates import choose_template, own_template_text
from longalign_core.records import Conversation, Message, Role

# Some templates print the day. A fixed one keeps the encoded bytes the same on every day.
_FIXED_DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}{{ '' }}"
# The em spaces tell whether the template strips a message; it has neither them nor the others in it.
_SPACE, _OPEN, _CLOSE = "\u2003", "\ue000", "\ue001"
_PLACEHOLDER = re.compile(f"({_SPACE}?){_OPEN}(\\d+){_CLOSE}({_SPACE}?)")


class ConversationError(DataError):
    """A conversation that cannot be trained on.

    Attributes:
        reason: A short fixed phrase to count by.
    """

    reason = "unusable"


class TurnsError(ConversationError):
    """User and assistant do not take turns, or the assistant says nothing."""

    reason = "turns"


class TemplateRefusesError(ConversationError):
    """The chat template refuses the conversation or changes the text of its messages."""

    reason = "chat template"


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` of a text, the last not included."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Control:
    """A control token, by its spelling, and where a text has it."""

    token: str
    span: Span


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation as text.

    Attributes:
        text: What the tokenizer is given.
        contents: Where each message's content stands, in the order of the text, with its role.
        targets: What the model is trained to write: for every assistant turn that says something,
            from the end of the generation prompt to the end of the turn's closing control token.
        controls: Control tokens that the template itself puts into the text, in their order.
    """

    text: str
    contents: tuple[tuple[Role, Span], ...]
    targets: tuple[Span, ...]
    controls: tuple[Control, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a template puts around messages of given roles.

    Attributes:
        scaffolds: Text before the first message, between messages, and after the last.
        order: Message that follows each scaffold but the last.
        strips: Per message, whether white space is stripped left and right of it.
        leads: Per message, characters of the scaffold before it that the model has to write.
        closings: Per message, characters of the scaffold after it up to the end of its turn.
        controls: Per scaffold, its control tokens.
    """

    scaffolds: tuple[str, ...]
    order: tuple[int, ...]
    strips: tuple[tuple[bool, bool], ...]
    leads: tuple[int, ...]
    closings: tuple[int, ...]
    controls: tuple[tuple[Control, ...], ...]


class ChatTemplate:
    """The chat template of a tokenizer, or one of ours for a tokenizer without one.

    Args:
        tokenizer: A transformers tokenizer.
        name: One of `NAMED_TEMPLATES`; None for the tokenizer's own.

    Attributes:
        source: The template's jinja text.
        replaces_own: Whether a named template is used though the tokenizer has one.
        controls: The control tokens, as they are spelled.

    Raises:
        InputError: The tokenizer has no template and none is named, the name is unknown, or the tokenizer
            lacks a token of the template or an end token.
    """

    def __init__(self, tokenizer: Any, name: str | None) -> None:
        self.source = choose_template(name, tokenizer)
        self.replaces_own = name is not None and bool(tokenizer.chat_template)
        if tokenizer.eos_token is None:
            raise InputError("the tokenizer has no end token to close a turn with; use one that names its eos_token")
        self._tokenizer = tokenizer
        # The tokenizer's own template tells controls that one of ours has no use for, such as Qwen's <tool_call>.
        written = self.source + self._sample() + own_template_text(tokenizer)
        # White space of some tokenizers is kept as added tokens too; it controls nothing.
        self.controls = tuple(
            added.content
            for added in tokenizer.added_tokens_decoder.values()
            if added.special
            or looks_like_control(added.content)
            or (added.content.strip() and added.content in written)
        )
        longest_first = sorted(self.controls, key=len, reverse=True)
        self.control_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._layouts: dict[tuple[Role, ...], _Layout] = {}

    def _sample(self) -> str:
        """What the template writes around messages; it may put control tokens together from a role's name."""
        turns = tuple(Message(role=role, content=_OPEN) for role in ("user", "assistant", "user"))
        written = ""
        for messages in (turns, (Message(role="system", content=_OPEN), *turns)):
            with suppress(TemplateError):  # it may take no system message
                written += self._apply(messages, add_generation_prompt=True)
        return written

    def render(self, conversation: Conversation) -> RenderedChat:
        """Lay out a conversation as text.

        Raises:
            ConversationError: Its turns do not alternate, or the template refuses or rewrites it.
        """
        roles = tuple(message.role for message in conversation.messages)
        try:
            _check_roles(roles)
            if roles not in self._layouts:
                self._layouts[roles] = self._lay_out(roles)
            chat = _compose(self._layouts[roles], conversation.messages)
            whole = self._apply(conversation.messages)
        except ConversationError as error:
            raise type(error)(f"conversation {conversation.id}: {error}") from error
        except TemplateError as error:
            raise TemplateRefusesError(f"conversation {conversation.id}: the chat template says: {error}") from error
        # `whole` lacks the end token that a layout adds to a template which leaves its last turn open.
        if not chat.text.startswith(whole) or chat.text[len(whole) :] not in ("", self._tokenizer.eos_token):
            raise TemplateRefusesError(
                f"conversation {conversation.id}: the chat template rewrites the text of its messages, "
                "so that what the model would see cannot be told; leave it out or use another template"
            )
        return chat

    def _apply(self, messages: tuple[Message, ...], add_generation_prompt: bool = False) -> str:
        text: str = self._tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            chat_template=_FIXED_DAY + self.source if "strftime_now" in self.source else self.source,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        return text

    def _lay_out(self, roles: tuple[Role, ...]) -> _Layout:
        messages = tuple(
            Message(role=role, content=f"{_SPACE}{_OPEN}{number}{_CLOSE}{_SPACE}") for number, role in enumerate(roles)
        )
        text = self._apply(messages)
        found = list(_PLACEHOLDER.finditer(text))
        order = tuple(int(match[2]) for match in found)
        if sorted(order) != list(range(len(roles))):
            raise TemplateRefusesError("the chat template leaves out or repeats a message; use another")
        bounds = [0, *(edge for match in found for edge in match.span()), len(text)]
        scaffolds = [text[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True)]
        if not self.control_pattern.search(scaffolds[-1]):
            # A template that leaves the last turn open would teach the model never to stop.
            scaffolds[-1] += self._tokenizer.eos_token
        strips, leads, closings = ([(False, False)] * len(roles), [0] * len(roles), [0] * len(roles))
        for place, match in enumerate(found):
            number = order[place]
            strips[number] = (not match[1], not match[3])
            closing = self.control_pattern.search(scaffolds[place + 1])
            closings[number] = closing.end() if closing else 0
            if roles[number] == "assistant":
                leads[number] = self._lead(messages[:number], scaffolds[place], order[place - 1])
        controls = tuple(
            tuple(Control(match[0], Span(*match.span())) for match in self.control_pattern.finditer(scaffold))
            for scaffold in scaffolds
        )
        return _Layout(tuple(scaffolds), order, tuple(strips), tuple(leads), tuple(closings), controls)

    def _lead(self, earlier: tuple[Message, ...], scaffold: str, previous: int) -> int:
        """Characters before an answer that are no part of its prompt.

        Only what the prompt ends with is compared: some templates put the system message into the last user
        message, so that an early turn's prompt begins otherwise than the whole conversation.
        """
        prompt = self._apply(earlier, add_generation_prompt=True)
        last = next(reversed(list(_PLACEHOLDER.finditer(prompt))), None)
        if last is None or int(last[2]) != previous or not scaffold.startswith(prompt[last.end() :]):
            return 0
        return len(scaffold) - len(prompt[last.end() :])


def looks_like_control(token: str) -> bool:
    """Whether an added token that is not called special is a control token by the look of it."""
    # Tokenizers also keep ordinary text as added tokens, such as Gemma's <table>; that stays what it is.
    return (token[:2], token[-2:]) in (("<|", "|>"), ("<\uff5c", "\uff5c>"))  # DeepSeek's bars are wide


def _compose(layout: _Layout, messages: tuple[Message, ...]) -> RenderedChat:
    pieces: list[str] = []
    contents: list[tuple[Role, Span]] = []
    targets: list[Span] = []
    controls: list[Control] = []
    length = 0
    for place, scaffold in enumerate(layout.scaffolds):
        if place:
            number = layout.order[place - 1]
            role, content = messages[number].role, messages[number].content
            strip_left, strip_right = layout.strips[number]
            content = content.lstrip() if strip_left else content
            content = content.rstrip() if strip_right else content
            span = Span(length, length + len(content))
            contents.append((role, span))
            if role == "assistant" and content.strip():
                targets.append(Span(span.start - layout.leads[number], span.end + layout.closings[number]))
            pieces.append(content)
            length = span.end
        for control in layout.controls[place]:
            controls.append(Control(control.token, Span(length + control.span.start, length + control.span.end)))
        pieces.append(scaffold)
        length += len(scaffold)
    return RenderedChat("".join(pieces), tuple(contents), tuple(targets), tuple(controls))


def _check_roles(roles: tuple[Role, ...]) -> None:
    """Refuse turns other than user and assistant in turn, an optional system message first."""
    turns = roles[1:] if roles[:1] == ("system",) else roles
    if "assistant" not in turns:
        raise TurnsError("it has no assistant turn; there is nothing to train on")
    for number, role in enumerate(turns):
        expected = "user" if number % 2 == 0 else "assistant"
        if role != expected:
            raise TurnsError(f"its turns are {', '.join(roles)}; user and assistant must alternate, the user first")
    if len(turns) % 2:
        raise TurnsError("its last turn is the user's; end it with the assistant's")
