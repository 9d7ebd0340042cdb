"""A laid-out conversation cut into control tokens and the text between them."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from longalign_core.chat_template import RenderedChat
from longalign_core.text_tokens import After

# What a control token with `lstrip` or `rstrip` takes with it: Unicode's White_Space, as `tokenizers` has it.
_WHITE_SPACE = (
    string.whitespace + "\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
)


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A control token's id, and whether it takes the white space on its left or right with it."""

    id: int
    takes_left: bool
    takes_right: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text that is encoded by itself.

    Attributes:
        start: First character.
        end: The character after the last.
        is_target: Whether the model is trained to write it.
        control: Id of the control token that it is; None for text.
        after: What text comes after.
    """

    start: int
    end: int
    is_target: bool
    control: int | None
    after: After


def cut_into_pieces(chat: RenderedChat, controls: Mapping[str, ControlToken]) -> list[Piece]:
    """Cut a conversation at its control tokens and at both ends of everything the model is trained to write.

    White space that a control token takes with it is in no piece, unless a cut lies between the two: what
    the model writes is never part of its prompt's last token.

    Args:
        chat: The conversation.
        controls: Every control token of its template, by its spelling.
    """
    starts = {control.span.start: controls[control.token] for control in chat.controls}
    edges = {0, len(chat.text), *starts, *(control.span.end for control in chat.controls)}
    edges.update(edge for span in chat.targets for edge in (span.start, span.end))
    opened, closed = ({span.start for span in chat.targets}, {span.end for span in chat.targets})
    pieces: list[Piece] = []
    is_target, left = False, None
    for start, end in pairwise(sorted(edges)):
        is_target = start in opened or (is_target and start not in closed)
        if control := starts.get(start):
            pieces.append(Piece(start, end, is_target, control.id, "control"))
            left = control
            continue
        after: After = "control" if left else "text" if start else "nothing"
        text, right = chat.text[start:end], starts.get(end)
        if left and left.takes_right:
            start = end - len(text.lstrip(_WHITE_SPACE))
        if right and right.takes_left:
            end = start + len(chat.text[start:end].rstrip(_WHITE_SPACE))
        if start < end:
            pieces.append(Piece(start, end, is_target, None, after))
        left = None
    return pieces
