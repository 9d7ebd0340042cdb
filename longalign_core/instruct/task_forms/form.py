"""What the kinds of tasks differ in."""

from __future__ import annotations

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
        return drawn if not self.demand or str(self.min_words) in drawn else f"{drawn} {self.demand}"
