"""What `instruct` tells of its run: for programs as JSON, for people as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from longalign_core.instruct.question_diversity import Diversity, measure_diversity
from longalign_core.instruct.report_counts import (
    Acceptance,
    Draw,
    Place,
    ShownConversation,
    Tally,
    shown_conversation,
)
from longalign_core.instruct.report_pictures import acceptance_picture, position_picture, words_picture
from longalign_core.instruct.schedule import NOT_NEEDED
from longalign_core.page_frame import render_page
from longalign_core.records import Conversation, Reject

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_NOWHERE = Place("not known", "not known", None)
_SHOWN = 10
_REJECTS_A_REASON = 3
_QUANTILES = (0.1, 0.5, 0.9)
_BINS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentRow:
    """What the calls of one purpose, task type and corpus came to.

    Attributes:
        dollars: None when the price of none of them is known.
        num_unpriced: Calls whose price is not known; they are not in `dollars`.
    """

    purpose: str
    task_type: str
    corpus: str
    calls: int
    prompt_tokens: int
    cached_tokens: int
    reply_tokens: int
    dollars: float | None
    num_unpriced: int = 0


def read_spending(file: Path) -> list[SpentRow]:
    """The rows of a product's `spending.json`; none where it has none."""
    if not file.is_file():
        return []
    names = [field.name for field in fields(SpentRow)]
    return [SpentRow(**{name: row[name] for name in names}) for row in orjson.loads(file.read_bytes())["rows"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructReport:
    """The outcomes of a run, counted, with some of them to read.

    Attributes:
        tally: Counts, of the documents that were asked about.
        num_not_needed: Documents that were not, since enough others gave a conversation.
        buckets: Ranges of lengths, from short to long.
        wanted: Conversations asked for; None when every document was to give one.
        diversity: Of the questions, by language.
        spending: Rows of the ledger.
        shown: Conversations drawn by seed.
        rejects: Rejects drawn by seed, a few of each reason, with where they stood.
    """

    tally: Tally
    num_not_needed: int
    buckets: tuple[str, ...]
    wanted: int | None
    diversity: Mapping[str, Diversity]
    spending: tuple[SpentRow, ...]
    shown: tuple[ShownConversation, ...]
    rejects: tuple[tuple[Reject, Place], ...]

    @classmethod
    def gather(
        cls,
        conversations: Iterable[Conversation],
        rejects: Iterable[Reject],
        places: Mapping[str, tuple[str, str, int | None]],
        *,
        wanted: int | None = None,
        spending: Sequence[SpentRow] = (),
        seed: int = 0,
    ) -> InstructReport:
        """Read all outcomes once, one at a time.

        Args:
            conversations: Those accepted; the first turn of each holds its documents, then the question
                after a blank line.
            rejects: Those left out.
            places: By the id of a conversation or reject, its task type, length bucket and tokens.
            wanted: Conversations asked for.
            spending: What the calls came to.
            seed: Of the conversations and rejects shown.
        """
        tally, shown = Tally(), Draw[ShownConversation](_SHOWN, seed)
        by_reason: dict[str, Draw[tuple[Reject, Place]]] = {}
        num_not_needed = 0
        for conversation in conversations:
            place = Place(*places.get(conversation.id, _NOWHERE))
            tally.accept(conversation, place)
            shown.offer(conversation.id, partial(shown_conversation, conversation, place))
        for reject in rejects:
            if reject.reason == NOT_NEEDED:
                num_not_needed += 1
                continue
            place = Place(*places.get(reject.id, _NOWHERE))
            tally.reject(reject, place)
            draw = by_reason.setdefault(reject.reason, Draw(_REJECTS_A_REASON, seed))
            draw.offer(reject.id, partial(_standing, reject, place))
        return cls(
            tally=tally,
            num_not_needed=num_not_needed,
            buckets=_by_length(tally.by_bucket, places),
            wanted=wanted,
            diversity={code: measure_diversity(asked, code) for code, asked in sorted(tally.questions.items())},
            spending=tuple(spending),
            shown=shown.drawn(),
            rejects=tuple(one for reason in sorted(by_reason) for one in by_reason[reason].drawn()),
        )

    @property
    def outcomes(self) -> Acceptance:
        """All of the documents asked about together."""
        groups = self.tally.by_type.values()
        rejected = sum((one.rejected for one in groups), Counter[str]())
        return Acceptance(sum(one.accepted for one in groups), rejected)

    @property
    def groupings(self) -> dict[str, dict[str, Acceptance]]:
        """Acceptance by task type, corpus and length."""
        return {
            "task type": dict(sorted(self.tally.by_type.items())),
            "corpus": dict(sorted(self.tally.by_corpus.items())),
            "length in tokens": {name: self.tally.by_bucket[name] for name in self.buckets},
        }

    def as_json(self) -> dict[str, Any]:
        """Everything but pictures and texts, as plain values."""
        tally, outcomes = self.tally, self.outcomes
        return {
            "wanted": self.wanted,
            "accepted": outcomes.accepted,
            "rejected": dict(sorted(outcomes.rejected.items())),
            "not_needed": self.num_not_needed,
            "acceptance": {
                name: {group: _acceptance_row(one) for group, one in groups.items()}
                for name, groups in self.groupings.items()
            },
            "diversity": {
                code: {
                    **asdict(one),
                    "distinct_n": {str(size): share for size, share in one.distinct_n.items()},
                    "openings": [list(pair) for pair in one.openings],
                }
                for code, one in self.diversity.items()
            },
            "evidence": {
                "passages": len(tally.evidence),
                "histogram": np.histogram(tally.evidence, _BINS, (0, 1))[0].tolist(),
                "thirds": list(thirds(tally.evidence)),
                "conversations_without": tally.num_without_evidence,
            },
            "words": {
                "question": list(quantiles(tally.question_words)),
                "answer": {name: list(quantiles(words)) for name, words in sorted(tally.answer_words.items())},
            },
            "spending": [asdict(row) for row in self.spending],
            "shown": [one.id for one in self.shown],
        }

    def as_html(self) -> str:
        """One page that asks nothing of the network, readable by day and by night."""
        tally = self.tally
        answers = [words for of_type in tally.answer_words.values() for words in of_type]
        lengths = [("questions", tally.question_words)]
        lengths += [(f"answers: {name}", words) for name, words in sorted(tally.answer_words.items())]
        return render_page(
            _TEMPLATE,
            report=self,
            outcomes=self.outcomes,
            groupings=[(name, groups, acceptance_picture(groups)) for name, groups in self.groupings.items()],
            reasons=[reason for reason, _ in self.outcomes.rejected.most_common()],
            thirds=thirds(tally.evidence),
            positions=position_picture(tally.evidence) if tally.evidence else None,
            question_lengths=words_picture(tally.question_words, "question") if tally.question_words else None,
            answer_lengths=words_picture(answers, "answer") if answers else None,
            lengths=[(name, len(words), quantiles(words)) for name, words in lengths],
            spent=[
                ("task type and purpose", summed(self.spending, _type_and_purpose)),
                ("corpus", summed(self.spending, lambda row: row.corpus or "no corpus")),
            ],
        )


def thirds(positions: Sequence[float]) -> tuple[int, int, int]:
    """How many positions lie in the first, the middle and the last third."""
    early = sum(place < 1 / 3 for place in positions)
    late = sum(place >= 2 / 3 for place in positions)
    return early, len(positions) - early - late, late


def quantiles(values: Sequence[float]) -> tuple[int, ...]:
    """The 10 %, 50 % and 90 % quantiles, rounded; empty for no values."""
    return tuple(round(float(one)) for one in np.quantile(values, _QUANTILES)) if len(values) else ()


def summed(rows: Sequence[SpentRow], key: Callable[[SpentRow], str]) -> list[SpentRow]:
    """Rows of the ledger summed by a name, which the sums have as their purpose; the last sums all of them."""
    names = sorted({key(row) for row in rows})
    groups = [(name, [row for row in rows if key(row) == name]) for name in names]
    return [_sum(name, group) for name, group in [*groups, ("all", list(rows))]] if rows else []


def _standing(reject: Reject, place: Place) -> tuple[Reject, Place]:
    return reject, place


def _type_and_purpose(row: SpentRow) -> str:
    return f"{row.task_type or 'no type'}: {row.purpose}"


def _sum(name: str, rows: Sequence[SpentRow]) -> SpentRow:
    known = [row.dollars for row in rows if row.dollars is not None]
    return SpentRow(
        purpose=name,
        task_type="",
        corpus="",
        calls=sum(row.calls for row in rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        cached_tokens=sum(row.cached_tokens for row in rows),
        reply_tokens=sum(row.reply_tokens for row in rows),
        dollars=sum(known) if known else None,
        num_unpriced=sum(row.calls if row.dollars is None else row.num_unpriced for row in rows),
    )


def _acceptance_row(one: Acceptance) -> dict[str, Any]:
    return {"accepted": one.accepted, "rejected": dict(sorted(one.rejected.items())), "share": one.share}


def _by_length(buckets: Iterable[str], places: Mapping[str, tuple[str, str, int | None]]) -> tuple[str, ...]:
    """Buckets from short to long, by their shortest document; those without lengths last."""
    shortest: dict[str, int] = {}
    for _, bucket, num_tokens in places.values():
        if num_tokens is not None:
            shortest[bucket] = min(num_tokens, shortest.get(bucket, num_tokens))
    return tuple(sorted(buckets, key=lambda name: (name not in shortest, shortest.get(name, 0), name)))
