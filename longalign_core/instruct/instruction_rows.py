"""Rows of instruction sets, in the forms they are published in, as messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from longalign_core.records import Message, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
# Seen in stored documentation: `output` in Alpaca, `response` in GPTeacher and Dolly; `input` in Alpaca,
# `context` in Dolly (axolotl's "Instruction Tuning" page, the catalogue entry of databricks_dolly).
_INSTRUCTION_ANSWERS = ("output", "response")
_INSTRUCTION_INPUTS = ("input", "context")

TextOf = Callable[[str], str]


class UnusableError(Exception):
    """A row, or a file, that gives no conversation; says why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class DroppedTurns:
    """Turns taken out of conversations that were kept.

    Attributes:
        empty: Assistant turns without text, each with the question it left unanswered.
        unanswered: User turns at a conversation's end.
    """

    empty: int = 0
    unanswered: int = 0


def messages_of(row: Any, text_of: TextOf) -> list[Message]:
    """The turns of a row, in order, whatever their roles.

    - `messages`: a list of `role` and `content`.
    - `conversations` (ShareGPT): a list of `from` and `value`, or of `role` and `content`.
    - `instruction`, `input`, `output` (Alpaca), with LLaMA-Factory's `system` and `history`, a list of
      pairs of earlier questions and answers. Dolly's `context` and `response` count as input and output.
      LongAlpaca-12k is one JSON array of this form: its authors' README names `instruction`, with the
      book or paper in it, and `output`, and says that `input` is not used. Any further field, such as
      the `file` that a text was taken from, is passed over.
    - `prompt` and `completion` (TRL): both texts, or both lists of `role` and `content`.

    A pair of `prompt` and `response` is no documented form: `prompt` means half a dozen things there.

    Raises:
        UnusableError: The row is of none of these forms.
    """
    if isinstance(row, dict):
        for field in ("messages", "conversations"):
            if isinstance(turns := row.get(field), list):
                return [_message(turn, text_of) for turn in turns]
        if isinstance(row.get("instruction"), str):
            answer = next((row[name] for name in _INSTRUCTION_ANSWERS if isinstance(row.get(name), str)), None)
            if answer is not None:
                return _of_instruction(row, answer, text_of)
        if "prompt" in row and "completion" in row:
            return [*_part(row["prompt"], "user", text_of), *_part(row["completion"], "assistant", text_of)]
    raise UnusableError(
        "unknown form",
        "expected messages, ShareGPT's conversations, Alpaca's instruction and output, or prompt and completion",
    )


def alternating(messages: list[Message], dropped: DroppedTurns) -> tuple[Message, ...]:
    """The conversation: an optional system message, then user and assistant in turn, the last the assistant's.

    Assistant turns without text go, with their question, and so does a last question without an answer.

    Raises:
        UnusableError: The roles do not alternate, or nothing is left.
    """
    has_system = bool(messages) and messages[0].role == "system"
    head, turns = messages[:has_system], messages[has_system:]
    roles = [turn.role for turn in turns]
    if "assistant" not in roles:
        raise UnusableError("no assistant turn", f"roles: {' '.join(roles)}"[:200])
    if any(role != ("assistant" if place % 2 else "user") for place, role in enumerate(roles)):
        raise UnusableError("does not alternate", f"roles: {' '.join(roles)}"[:200])
    pairs = [(turns[place], turns[place + 1]) for place in range(0, len(turns) - 1, 2)]
    answered = [pair for pair in pairs if pair[1].content.strip()]
    if not answered:
        raise UnusableError("no assistant turn", "every assistant turn is empty")
    if not all(question.content.strip() for question, _ in answered):
        raise UnusableError("empty user turn", "an answer to nothing")
    dropped.empty += len(pairs) - len(answered)
    dropped.unanswered += len(turns) % 2
    return (*(one for one in head if one.content.strip()), *(turn for pair in answered for turn in pair))


def _of_instruction(row: dict[str, Any], answer: str, text_of: TextOf) -> list[Message]:
    more = next((row[name] for name in _INSTRUCTION_INPUTS if isinstance(row.get(name), str) and row[name].strip()), "")
    question = f"{row['instruction']}\n\n{more}" if more else row["instruction"]
    turns: list[tuple[Role, Any]] = [("system", row["system"])] if row.get("system") else []
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise UnusableError("unknown form", "expected pairs of question and answer in history")
    turns += [turn for asked, replied in history for turn in (("user", asked), ("assistant", replied))]
    turns += [("user", question), ("assistant", answer)]
    return [turn for role, text in turns for turn in _part(text, role, text_of)]


def _part(value: Any, role: Role, text_of: TextOf) -> list[Message]:
    """A text as one message of the role, or a list of messages as it is."""
    if isinstance(value, list):
        return [_message(turn, text_of) for turn in value]
    if not isinstance(value, str):
        raise UnusableError("turn without text", f"the {role}'s turn is no text")
    return [Message(role=role, content=text_of(value))]


def _message(turn: Any, text_of: TextOf) -> Message:
    if not isinstance(turn, dict):
        raise UnusableError("turn without text", "expected an object in every turn")
    name = turn.get("role") if turn.get("from") is None else turn["from"]
    text = turn.get("content") if turn.get("value") is None else turn["value"]
    if not isinstance(text, str):
        raise UnusableError("turn without text", "expected a string `content` or `value` in every turn")
    role = _ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise UnusableError("unknown role", f"{name!r}; known are {', '.join(_ROLES)}")
    return Message(role=role, content=text_of(text))
