"""What the kinds of tasks differ in."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskForm:
    """One task type in one language.

    Attributes:
        request: What kind of questions, put into the request for them.
        is_task: Whether the request calls them tasks.
        min_turns: Fewest questions of a conversation.
        max_turns: Most questions.
        min_words: Shortest answer that is kept, in words or Chinese characters; 0 for any.
        demand: Added to a question that does not name `min_words`, and kept in the conversation.
    """

    request: str
    is_task: bool = False
    min_turns: int = 1
    max_turns: int = 1
    min_words: int = 0
    demand: str = ""

    def question(self, drawn: str) -> str:
        """The question as it is asked: one that wants a long answer says how long."""
        if not self.demand or self._names_length(drawn):
            return drawn
        # Chinese sentences stand side by side.
        return f"{drawn}{self.demand}" if drawn.endswith(("。", "！", "？")) else f"{drawn} {self.demand}"

    def _names_length(self, drawn: str) -> bool:
        """Whether the number stands there as one of words: neither as a part of 1,800 nor as a year."""
        behind = r"[^\d.!?。！？]{0,12}(?:word|字|词)"
        return re.search(rf"(?<!\d){self.min_words}(?!\d){behind}", drawn.replace(",", ""), re.IGNORECASE) is not None
