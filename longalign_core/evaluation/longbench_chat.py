"""LongBench-Chat: questions over long documents, judged against a reference and three scored answers.

Bai et al. 2024 (arXiv 2401.18058), section 4.1. The questions are the user's copy. Departs from the
published script where that loses information: answers keep their newlines, the order of the scored
answers differs between repeats but not between checkpoints, and a reply without a verdict is asked
for again and then left unscored.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any

import orjson

from longalign_core.config.evaluation import LongBenchChatConfig
from longalign_core.errors import DataError
from longalign_core.evaluation.suites import Question, Rating, Scale
from longalign_core.evaluation.verdicts import neutralised, parse_rating
from longalign_core.evaluation.window import PromptWindow
from longalign_core.records import text_sha256

_SHOTS = 3
_ORDERS = tuple(permutations(range(_SHOTS)))
# Question, reference, three times an answer and its score, the answer to judge.
_SLOTS = 2 + 2 * _SHOTS + 1
_SCALE = Scale(minimum=1, maximum=10)


@dataclass(frozen=True, slots=True)
class Shot:
    """An answer to a question with the score that people gave it."""

    answer: str
    score: int


@dataclass(frozen=True)
class ScoredExamples:
    """The judge's instructions, filled in for one answer at a time.

    Attributes:
        template: Judge prompt with nine positional {} slots.
        shots: Three scored answers by question id.
        repeats: Times each answer is judged.
    """

    template: str
    shots: dict[str, tuple[Shot, ...]]
    repeats: int

    @property
    def template_sha256(self) -> str:
        """Digest of the template."""
        return text_sha256(self.template)

    def prompt(self, question: Question, reply: str, draw: int) -> str:
        """The query without its document, the reference, the scored answers in the draw's order, the reply."""
        order = shot_order(question.id, draw)
        shots = [self.shots[question.id][place] for place in order]
        scored = [part for shot in shots for part in (shot.answer, str(shot.score))]
        slots = [question.query, question.reference, *scored, neutralised(reply, self.template)]
        pieces = self.template.split("{}")
        return "".join(piece + slot for piece, slot in zip(pieces, [*slots, ""], strict=True))

    def rating(self, reply: str) -> Rating:
        """The last verdict in the judge's words."""
        return parse_rating(reply, int(_SCALE.minimum), int(_SCALE.maximum))


def shot_order(question_id: str, draw: int) -> tuple[int, ...]:
    """Order of a question's scored answers: fixed for question and draw, the same for every checkpoint.

    Six draws in a row give all six orders.
    """
    seed = int.from_bytes(hashlib.sha256(question_id.encode()).digest()[:8], "big")
    orders = random.Random(seed).sample(_ORDERS, len(_ORDERS))
    return orders[draw % len(orders)]


class LongBenchChat:
    """The suite of a config whose sources are local paths."""

    scale = _SCALE

    def __init__(self, config: LongBenchChatConfig) -> None:
        """Read the questions, the scored answers and the judge's template.

        Raises:
            DataError: One of the files is not of the benchmark's form.
        """
        self._config = config
        self._rows = [_checked_row(row) for row in _json_list(Path(config.questions), "questions")]
        ids = [row["idx"] for row in self._rows]
        if len(ids) != len(set(ids)):
            raise DataError("the questions file gives two questions the same idx; give each its own, from 1")

    @property
    def num_questions(self) -> int:
        """How many questions the file holds."""
        return len(self._rows)

    @cached_property
    def scoring(self) -> ScoredExamples:
        """Judging with scored examples."""
        template = Path(self._config.judge_prompt).read_text(encoding="utf-8")
        if (found := template.count("{}")) != _SLOTS:
            raise DataError(
                f"the judge template has {found} slots {{}}, it needs {_SLOTS}: question, reference, three times an "
                "answer and its rating, the answer to judge; use the benchmark's prompt_fs.txt"
            )
        groups = _json_list(Path(self._config.few_shots), "few_shots")
        shots = {str(row["idx"]): _shots_of(groups, row["idx"]) for row in self._rows}
        return ScoredExamples(template=template, shots=shots, repeats=self._config.repeats)

    def questions(self, window: PromptWindow) -> tuple[Question, ...]:
        """Every question; those over one document together, the longest documents first."""
        questions = [_question(row) for row in self._rows]
        documents = {question.id: document_of(question) for question in questions}
        return tuple(sorted(questions, key=lambda question: _longest_first(documents[question.id], question)))


def read_questions(file: Path) -> list[Question]:
    """The questions of a benchmark's file, as they come. Raises DataError when it is not of that form."""
    return [_question(_checked_row(row)) for row in _json_list(file, "questions")]


def document_of(question: Question) -> str:
    """What a question is asked about."""
    before, _, after = question.message.rpartition(question.query)
    return before + after


def _question(row: dict[str, Any]) -> Question:
    return Question(id=str(row["idx"]), message=row["prompt"], query=row["query"], reference=row["answer"])


def _longest_first(document: str, question: Question) -> tuple[int, str, int]:
    return (-len(document), text_sha256(document), int(question.id))


def _json_list(path: Path, field: str) -> list[Any]:
    try:
        rows = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path.name} ({field}) is not JSON: {error}; use the benchmark's own file") from None
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path.name} ({field}) is not a list with entries; use the benchmark's own file")
    return rows


def _checked_row(row: Any) -> dict[str, Any]:
    texts = ("prompt", "query", "answer")
    if (
        not isinstance(row, dict)
        or not isinstance(row.get("idx"), int)
        or not all(isinstance(row.get(name), str) for name in texts)
    ):
        found = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise DataError(
            f"a question is {found}, it needs idx (a whole number from 1) and the texts prompt, query, answer"
        )
    return row


def _shots_of(groups: list[Any], idx: int) -> tuple[Shot, ...]:
    if not 1 <= idx <= len(groups):
        raise DataError(
            f"question idx {idx} has no scored answers: few_shots holds {len(groups)} groups, the first for idx 1"
        )
    group = groups[idx - 1]
    try:
        shots = tuple(Shot(shot["answer"], int(shot["score"])) for shot in group)
    except (TypeError, KeyError, ValueError):
        raise DataError(
            f"few_shots for idx {idx} are not {{answer, score}} entries; use the benchmark's file"
        ) from None
    if len(shots) != _SHOTS:
        raise DataError(f"few_shots for idx {idx} are {len(shots)} entries, the judge template takes {_SHOTS}")
    return shots
