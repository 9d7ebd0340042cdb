"""Which tokens of a conversation stay when it has too many."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from longalign_core.chat_template import ConversationError, RenderedChat, Span


class TooLongError(ConversationError):
    """A conversation does not fit, and may not or cannot be shortened."""

    reason = "too long"


@dataclass(frozen=True, slots=True)
class TokenPlaces:
    """The characters that each token of a text stands for.

    Attributes:
        spans: Start and end character, by token. Ends never fall.
    """

    spans: list[tuple[int, int]]

    def before(self, character: int) -> int:
        """How many tokens end at or before a character."""
        return bisect_right(self.spans, character, key=lambda span: span[1])

    def inside(self, span: Span) -> tuple[int, int]:
        """Range of the tokens that lie inside a span entirely."""
        start = self.before(span.start)
        if start < len(self.spans) and self.spans[start][0] < span.start:
            start += 1
        return start, max(start, self.before(span.end))

    def splits_character(self, place: int) -> bool:
        """Whether the token at a place goes on with a character that the one before began."""
        return 0 < place < len(self.spans) and self.spans[place][0] < self.spans[place - 1][1]


def cut_middle(chat: RenderedChat, tokens: TokenPlaces, excess: int) -> tuple[int, int]:
    """First and last token, the last not included, to leave out of the longest user message.

    What follows its last blank line (or line break) is the question: it stays whole where it fits.

    Args:
        chat: The conversation.
        tokens: Its tokens.
        excess: Tokens that it has too many; at most a few more are left out, so that no character is cut.

    Raises:
        TooLongError: The longest user message has fewer tokens.
    """
    user_spans = [span for role, span in chat.contents if role == "user"]
    ranges = [tokens.inside(span) for span in user_spans]
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
