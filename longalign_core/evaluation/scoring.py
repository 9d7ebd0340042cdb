"""Answers to verdicts: by a metric computed here, or by a judging model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from longalign_core.chat_client import CallFailedError, ChatRequest
from longalign_core.config.models import ChatModel
from longalign_core.evaluation.asking import Asker, Outcome
from longalign_core.evaluation.suites import Judging, Metric, Question
from longalign_core.records import Answer, Message, Verdict


@dataclass(frozen=True, slots=True)
class Case:
    """One question with its answer."""

    question: Question
    answer: Answer


def measure(cases: Sequence[Case], metric: Metric) -> list[Verdict]:
    """One verdict a case, computed here; a case without a reply is unscored."""
    return [
        Verdict(
            question_id=case.question.id,
            repeat=0,
            score=None if case.answer.reply is None else metric.score(case.question, case.answer.reply),
            judge=metric.name,
            unscored=_unanswered(case),
        )
        for case in cases
    ]


def judge(cases: Sequence[Case], judging: Judging, model: ChatModel, asker: Asker) -> list[Verdict]:
    """As many verdicts a case as the suite repeats, by the judging model.

    A reply without a proper verdict is asked for once more, with another draw, so that the request
    differs even at temperature 0. What then has no verdict is unscored, with the reason. A call given
    up for a passing reason is not asked in another draw: the asker remembers it for another run.
    """
    verdicts = [
        Verdict(question_id=case.question.id, repeat=repeat, score=None, judge=model.model, unscored=_unanswered(case))
        for case in cases
        for repeat in range(judging.repeats)
    ]
    by_id = {case.question.id: case for case in cases}
    unsettled = [place for place, verdict in enumerate(verdicts) if verdict.unscored is None]
    for attempt, label in enumerate(("judge the answers", "judge again")):
        if not unsettled:
            break
        requests = [
            _request(
                by_id[verdicts[place].question_id], verdicts[place].repeat + attempt * judging.repeats, judging, model
            )
            for place in unsettled
        ]
        outcomes = dict(zip(unsettled, asker.ask_all(requests, label), strict=True))
        for place, outcome in outcomes.items():
            verdicts[place] = _settled(verdicts[place], outcome, judging)
        unsettled = [
            place for place, outcome in outcomes.items() if verdicts[place].score is None and not _left(outcome)
        ]
    return verdicts


def _request(case: Case, draw: int, judging: Judging, model: ChatModel) -> ChatRequest:
    assert case.answer.reply is not None, "a case without a reply has nothing to judge"
    prompt = judging.prompt(case.question, case.answer.reply, draw)
    return ChatRequest(
        model=model.model,
        messages=(Message(role="user", content=prompt),),
        temperature=model.temperature,
        top_p=model.top_p,
        max_tokens=model.max_tokens,
        purpose="judge",
        repeat=draw,
        seed=draw,
    )


def _settled(verdict: Verdict, outcome: Outcome, judging: Judging) -> Verdict:
    if isinstance(outcome, CallFailedError):
        return replace(verdict, reply=None, unscored=f"the judge gave no reply: {outcome.reason}")
    rating = judging.rating(outcome.text)
    return replace(verdict, reply=outcome.text, score=rating.score, unscored=rating.unscored)


def _left(outcome: Outcome) -> bool:
    """Whether the same call is to be asked another time."""
    return isinstance(outcome, CallFailedError) and outcome.passing


def _unanswered(case: Case) -> str | None:
    return None if case.answer.reply is not None else f"no answer: {case.answer.error}"
