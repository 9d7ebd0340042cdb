"""One suite on one checkpoint: asked, then scored. The candidate's server is gone before the judge's starts."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longalign_core.chat_client import Endpoint
from longalign_core.chat_client.calls import given_up_error
from longalign_core.config.evaluation import SuiteRun
from longalign_core.config.runtime import Runtime
from longalign_core.errors import EndpointError
from longalign_core.evaluation.answers import answer_questions
from longalign_core.evaluation.asking import Asker, RoleCalls
from longalign_core.evaluation.scoring import Case, judge, measure
from longalign_core.evaluation.suites import Metric, Question, Suite, open_suite
from longalign_core.evaluation.window import PromptWindow
from longalign_core.records import Answer, Verdict
from longalign_core.serving import endpoint_for, named_endpoint, served

CANDIDATE = "candidate"
JUDGE = "judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """What a checkpoint did on a suite.

    Attributes:
        suite: The suite, for its scale.
        description: What the verdicts rest on, as JSON values: the content of suite.json.
        answers: One a question, in the order asked.
        verdicts: Grouped by question, in the same order.
    """

    suite: Suite
    description: dict[str, Any]
    answers: list[Answer]
    verdicts: list[Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replies:
    """Where the replies of each role are kept, opened, and what may be spent on further ones.

    Attributes:
        candidate: Of the checkpoint under test.
        judge: Of the judge; None where the suite needs none.
    """

    candidate: RoleCalls
    judge: RoleCalls | None = None


def run_suite(
    config: SuiteRun,
    checkpoint: Path,
    name: str,
    runtime: Runtime,
    replies: Replies,
    judge_weights: str | None = None,
) -> SuiteResult:
    """Ask a checkpoint a suite's questions and score its answers.

    Args:
        config: Its sources are local paths.
        checkpoint: Model folder.
        name: The checkpoint's name in requests: `answers.candidate_name`.
        runtime: Endpoints; a candidate or judge without one is served here.
        replies: Where replies are kept; those that are there are not asked for again.
        judge_weights: Fingerprint of a local judge's weights; None for a hosted one.

    Raises:
        DataError: A file of the suite or the checkpoint cannot be used.
        EndpointError: The candidate or the judge cannot be asked; or, after everything was asked,
            some calls were given up for reasons that pass.
    """
    suite = open_suite(config.suite)
    scoring = suite.scoring
    candidate = config.candidate
    window = PromptWindow.open(checkpoint, candidate.context_tokens - candidate.max_tokens)
    questions = suite.questions(window)
    with Asker(CANDIDATE, lambda: _candidate_endpoint(checkpoint, name, runtime), replies.candidate, runtime) as asker:
        try:
            answers = answer_questions(questions, name, candidate, window, asker)
        except EndpointError as error:
            if CANDIDATE not in runtime.endpoints:
                raise
            raise EndpointError(f"{error}; the candidate's endpoint has to serve this checkpoint as {name}") from None
    given_up = {CANDIDATE: asker.given_up}
    cases = [Case(question, answer) for question, answer in zip(questions, answers, strict=True)]
    if isinstance(scoring, Metric):
        verdicts = measure(cases, scoring)
    else:
        model, of_judge = config.judge, replies.judge
        assert model is not None and of_judge is not None, "a recipe with a judged suite and no judge is refused"
        with Asker(JUDGE, lambda: endpoint_for(JUDGE, model, runtime), of_judge, runtime, judge_weights) as asker:
            verdicts = judge(cases, scoring, model, asker)
        given_up[JUDGE] = asker.given_up
    if any(given_up.values()):
        raise given_up_error(given_up)
    description = _description(config, suite, name, questions)
    return SuiteResult(suite=suite, description=description, answers=answers, verdicts=verdicts)


def _candidate_endpoint(checkpoint: Path, name: str, runtime: Runtime) -> AbstractContextManager[Endpoint]:
    if endpoint := named_endpoint(CANDIDATE, runtime):
        return nullcontext(endpoint)
    return served(checkpoint, name, CANDIDATE, runtime)


def _description(config: SuiteRun, suite: Suite, name: str, questions: tuple[Question, ...]) -> dict[str, Any]:
    scoring = suite.scoring
    sampling = {"temperature", "top_p", "max_tokens"}
    return {
        "schema": 1,
        "kind": config.suite.kind,
        "name": config.suite.name,
        "scale": asdict(suite.scale),
        "num_questions": len(questions),
        "candidate": {"name": name, **config.candidate.model_dump()},
        "judge": None
        if config.judge is None
        else {"name": config.judge.model, **config.judge.model_dump(include=sampling)},
        "repeats": 1 if isinstance(scoring, Metric) else scoring.repeats,
        "template_sha256": None if isinstance(scoring, Metric) else scoring.template_sha256,
    }
