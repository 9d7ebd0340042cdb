"""Which of the listed questions is kept: the seed's choice, unless nearly the same was drawn before."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Protocol

from longalign_core.instruct.near_questions import NearQuestions


class Notes(Protocol):
    """Short texts by key that outlive the process; the response store is one."""

    def note(self, key: str) -> str | None:
        """The text under a key, if there is one."""

    def put_note(self, key: str, value: str) -> str:
        """Keep a text, durably, and return the one that counts: the first that was put."""


class Draws:
    """Draws questions for a run, and remembers them in its notes.

    What is drawn depends on what was drawn before, and so on the order in which replies come. Hence a
    choice is noted before its answer is asked: a later run takes the noted one, in whatever order it
    works, and repeats no answered call. Of the notes of an earlier run, a choice is compared only with
    those that were taken up again before it.

    Attributes:
        num_drawn: Questions drawn, noted ones included.
        num_repeated: Of these, those that nearly repeat another document's because every listed one did.
    """

    def __init__(self, notes: Notes, seed: int) -> None:
        self.num_drawn = 0
        self.num_repeated = 0
        self._notes = notes
        self._seed = seed
        self._drawn = NearQuestions()

    async def draw(self, questions: Sequence[str], *, of: str, subject: str) -> str:
        """One of the questions: the one that the seed prefers, or the next that was not drawn before.

        Questions that nearly equal one before them in the list are passed over. Where all nearly equal
        drawn ones, the least similar is taken and counted.

        Args:
            questions: At least one.
            of: Address of the request and the reply that list them; a note holds for these alone.
            subject: What the draw is for, unique in the run: task type, documents, turn.
        """
        key = "draw:" + hashlib.sha256(f"{self._seed}\0{subject}\0{of}".encode("utf-8", "surrogatepass")).hexdigest()
        noted = await asyncio.to_thread(self._notes.note, key)
        if noted is None:
            # Choosing and remembering are one step of the event loop: two draws at once see each other.
            question, repeats = self._choose(_distinct(questions), subject)
            self._drawn.add(question)
            noted = await asyncio.to_thread(self._notes.put_note, key, json.dumps([question, repeats]))
        kept, repeats = json.loads(noted)
        self._drawn.add(kept)
        self.num_drawn += 1
        self.num_repeated += repeats
        return str(kept)

    def _choose(self, questions: Sequence[str], subject: str) -> tuple[str, bool]:
        first = draw_number(self._seed, "question", subject) % len(questions)
        likeness: dict[str, float] = {}
        for question in [*questions[first:], *questions[:first]]:
            likeness[question] = self._drawn.likeness(question)
            if not likeness[question]:
                return question, False
        return min(likeness, key=lambda question: likeness[question]), True


def draw_number(seed: int, purpose: str, subject: str) -> int:
    """A number below 2^64, fixed by seed, purpose and subject."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{purpose}\0{subject}".encode()).digest()[:8])


def _distinct(questions: Sequence[str]) -> list[str]:
    """Without those that nearly equal an earlier one."""
    among, kept = NearQuestions(), []
    for question in questions:
        if not among.likeness(question):
            among.add(question)
            kept.append(question)
    return kept
