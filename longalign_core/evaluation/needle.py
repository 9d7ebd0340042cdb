"""Needle in a haystack: one sentence at several depths of texts of several lengths.

Lengths are the whole prompt in the candidate's tokens. The needle goes between two sentences, found
in the text itself and not by a token id, so that it stands at its depth with every tokenizer.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longalign_core.config.evaluation import NeedleConfig
from longalign_core.errors import DataError
from longalign_core.evaluation.suites import Question, Scale
from longalign_core.evaluation.window import PromptWindow

# Where a sentence has ended and the next begins: after the white space, or at once in Chinese.
_BOUNDARY = re.compile(r"[.!?][\"'”’)\]]*\s+|[。！？][”’」』）]*\s*|\n\s*")
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")
_INSTRUCTION = "Answer from the text above."


@dataclass(frozen=True)
class ExactMatch:
    """1 when the reply holds the expected words in their order, else 0."""

    name: str = "exact match"

    def score(self, question: Question, reply: str) -> float:
        """Compare words, whatever their case, width and punctuation."""
        expected, given = _words(question.reference), _words(reply)
        return float(any(given[at : at + len(expected)] == expected for at in range(len(given) - len(expected) + 1)))


@dataclass(frozen=True, slots=True)
class Haystack:
    """A long text, where its tokens begin and where its sentences do.

    Attributes:
        spans: First and one-past-last character of each token. Shape (T, 2).
        boundaries: Characters at which a sentence begins, rising; the text's own beginning among them.
    """

    text: str
    spans: NDArray[np.int64]
    boundaries: list[int]

    @classmethod
    def read(cls, folder: Path, window: PromptWindow, num_tokens: int) -> Haystack:
        """Join a folder's texts in name order, from the first again until there are `num_tokens`.

        Hidden files and links that lead out of the folder are left out: addresses do not know them.

        Raises:
            DataError: The folder holds no text.
        """
        files = [path for path in sorted(folder.rglob("*.txt")) if _belongs(path, folder)]
        joined = "\n\n".join(path.read_text(encoding="utf-8").strip() for path in files).strip()
        if not joined:
            raise DataError(f"the haystack folder {folder.name} holds no text; put *.txt files into it")
        text, spans = joined, window.spans(joined)
        if len(spans) < num_tokens:
            text = "\n\n".join([joined] * (num_tokens // max(len(spans), 1) + 1))
            spans = window.spans(text)
        return cls(text, spans, [0, *(found.end() for found in _BOUNDARY.finditer(text))])

    def with_needle(self, needle: str, depth: float, num_tokens: int) -> tuple[str, int]:
        """The first `num_tokens` tokens with the needle between two sentences near its depth.

        Returns:
            The text, and the character at which the needle stands.
        """
        num_tokens = min(num_tokens, len(self.spans))
        end = int(self.spans[num_tokens - 1, 1]) if num_tokens else 0
        wanted = round(depth * num_tokens)
        target = int(self.spans[wanted, 0]) if wanted < num_tokens else end
        place = self._nearest_boundary(target, end)
        before, after = self.text[:place], self.text[place:end]
        lead = " " if before and not before[-1].isspace() else ""
        return f"{before}{lead}{needle} {after}".rstrip(), place + len(lead)

    def _nearest_boundary(self, target: int, end: int) -> int:
        # The end counts: a needle at depth 1 stands after the last word.
        at = bisect_left(self.boundaries, target)
        near = [place for place in [*self.boundaries[max(at - 1, 0) : at + 1], end] if place <= end]
        return min(near, key=lambda place: abs(place - target))


class Needle:
    """The suite of a config whose haystack is a local folder."""

    scale = Scale(minimum=0, maximum=1)
    scoring = ExactMatch()

    def __init__(self, config: NeedleConfig) -> None:
        """Remember the grid; texts are read when the tokenizer is known.

        Raises:
            DataError: The expected answer holds no word, so every reply would hold it.
        """
        if not _words(config.expected):
            raise DataError(f"{config.name}: `expected` holds no word to look for; write words of the needle there")
        self._config = config

    def questions(self, window: PromptWindow) -> tuple[Question, ...]:
        """The grid, longest texts first and each from deep to shallow.

        All prompts then begin with the same text up to their needle, which servers that keep
        prefixes compute once.

        Raises:
            DataError: A length has no room for needle and question, or is over the candidate's window.
        """
        haystack = Haystack.read(Path(self._config.haystack), window, max(self._config.lengths))
        lengths = sorted(set(self._config.lengths), reverse=True)
        depths = sorted(set(self._config.depths), reverse=True)
        return tuple(self._question(haystack, length, depth, window) for length in lengths for depth in depths)

    def _question(self, haystack: Haystack, length: int, depth: float, window: PromptWindow) -> Question:
        if length > window.max_prompt_tokens:
            raise DataError(
                f"{self._config.name} asks for prompts of {length} tokens, the candidate's window holds "
                f"{window.max_prompt_tokens}; lower suites.lengths or raise candidate.context_tokens"
            )
        prompt = f"\n\n{_INSTRUCTION} {self._config.question}"
        overhead = window.count(self._config.needle + prompt)
        if overhead > length:
            raise DataError(
                f"{self._config.name}: needle, question and chat template alone take {overhead} tokens; "
                f"a length of {length} is too short"
            )
        num_tokens, total = length - overhead, length + 1
        # Tokens form anew around the needle, so the prompt is counted and the text shortened until it fits.
        while total > length:
            text, place = haystack.with_needle(self._config.needle, depth, num_tokens)
            total = window.count(text + prompt)
            num_tokens = max(0, num_tokens - max(0, total - length))
        return Question(
            id=f"{length}@{depth:g}",
            message=text + prompt,
            query=self._config.question,
            reference=self._config.expected,
            attributes={"length": length, "depth": depth, "needle_character": place, "prompt_tokens": total},
        )


def _belongs(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
    return not hidden and path.is_file() and path.resolve().is_relative_to(folder.resolve())


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
