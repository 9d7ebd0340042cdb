"""The scorecard: every suite's mean with its interval, the gate, and what the run was made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from longalign_core.config.evaluation import ScorecardConfig
from longalign_core.evaluation.run_products import (
    CorpusShare,
    Packing,
    RejectCount,
    TrainingCurve,
    TrainingSequences,
    corpus_shares,
    expect_files,
    packing,
    reject_counts,
    training_curve,
    training_sequences,
)
from longalign_core.evaluation.statistics import MeanEstimate, estimate_mean, question_scores
from longalign_core.evaluation.suites import Scale
from longalign_core.record_files import read_records
from longalign_core.records import Answer, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One question with its answer, its verdicts, and the mean of those that are scores."""

    answer: Answer
    verdicts: tuple[Verdict, ...]
    score: float | None

    @property
    def unscored(self) -> str | None:
        """Why there is no score; None when there is one."""
        reasons = [verdict.unscored for verdict in self.verdicts if verdict.unscored]
        return None if self.score is not None else (reasons[0] if reasons else "no verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteScore:
    """A suite's result.

    Attributes:
        description: What it rests on: the content of suite.json.
        cases: Every question, in the order asked.
        unscored_reasons: Verdicts without a score, by reason, the most frequent first.
    """

    name: str
    kind: str
    scale: Scale
    estimate: MeanEstimate
    description: dict[str, Any]
    cases: tuple[CaseResult, ...]
    unscored_reasons: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Whether the first suite's mean is high enough. A mean that is not there does not pass."""

    threshold: float | None
    suite: str | None
    outcome: Literal["passed", "failed", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorecard:
    """Everything that the page, the text and the JSON say."""

    name: str
    notice: str
    gate: Gate
    suites: tuple[SuiteScore, ...]
    corpora: tuple[CorpusShare, ...]
    sequences: TrainingSequences | None
    packing: Packing | None
    training: TrainingCurve | None
    rejects: tuple[RejectCount, ...]

    def as_json(self) -> dict[str, Any]:
        """The machine's form: figures and per-question scores, without texts and pictures."""
        return {
            "schema": 1,
            "name": self.name,
            "notice": self.notice,
            "gate": asdict(self.gate),
            "suites": [_suite_json(suite) for suite in self.suites],
            "corpora": [asdict(corpus) for corpus in self.corpora],
            "sequences": _sequences_json(self.sequences),
            "packing": _packing_json(self.packing),
            "training": _training_json(self.training),
            "rejects": [asdict(count) for count in self.rejects],
        }


def draw_up(config: ScorecardConfig, inputs: Mapping[str, tuple[Path, ...]]) -> Scorecard:
    """Read what the stages left and put it together.

    Args:
        config: Name, gate and notice.
        inputs: "evaluations" in the order of the recipe's suites; "documents", "tokens", "plan" and
            "train" where there are such. Rejects are counted in every folder, whatever its name.

    Raises:
        DataError: A folder does not hold what its stage writes.
    """
    suites = tuple(_suite_score(folder) for folder in inputs.get("evaluations", ()))
    documents, tokens, plan, train = (_only(inputs, name) for name in ("documents", "tokens", "plan", "train"))
    return Scorecard(
        name=config.name,
        notice=config.notice,
        gate=_gate(config.gate, suites),
        suites=suites,
        corpora=() if documents is None else corpus_shares(documents),
        sequences=None if tokens is None else training_sequences(tokens),
        packing=None if plan is None else packing(plan),
        training=None if train is None else training_curve(train),
        rejects=reject_counts(folder for folders in inputs.values() for folder in folders),
    )


def _only(inputs: Mapping[str, tuple[Path, ...]], name: str) -> Path | None:
    folders = inputs.get(name, ())
    return folders[0] if folders else None


def _suite_score(folder: Path) -> SuiteScore:
    expect_files(folder, "suite.json", "answers.parquet", "verdicts.parquet")
    description = orjson.loads((folder / "suite.json").read_bytes())
    scale = Scale(**description["scale"])
    verdicts = list(read_records(folder / "verdicts.parquet", Verdict))
    scores = question_scores(verdicts)
    cases = tuple(
        CaseResult(
            answer=answer,
            verdicts=tuple(verdict for verdict in verdicts if verdict.question_id == answer.question_id),
            score=scores[answer.question_id],
        )
        for answer in read_records(folder / "answers.parquet", Answer)
    )
    reasons = Counter(verdict.unscored for verdict in verdicts if verdict.unscored)
    return SuiteScore(
        name=description["name"],
        kind=description["kind"],
        scale=scale,
        estimate=estimate_mean([case.score for case in cases], minimum=scale.minimum, maximum=scale.maximum),
        description=description,
        cases=cases,
        unscored_reasons=dict(reasons.most_common()),
    )


def _gate(threshold: float | None, suites: tuple[SuiteScore, ...]) -> Gate:
    if threshold is None:
        return Gate(threshold=None, suite=None, outcome="none")
    mean = suites[0].estimate.mean if suites else None
    passed = mean is not None and mean >= threshold
    return Gate(threshold=threshold, suite=suites[0].name if suites else None, outcome="passed" if passed else "failed")


def _suite_json(suite: SuiteScore) -> dict[str, Any]:
    return {
        **suite.description,
        **asdict(suite.estimate),
        "coverage": suite.estimate.coverage,
        "unscored_reasons": suite.unscored_reasons,
        "questions": [
            {"id": case.answer.question_id, "score": case.score, "unscored": case.unscored} for case in suite.cases
        ],
    }


def _sequences_json(sequences: TrainingSequences | None) -> dict[str, Any] | None:
    if sequences is None:
        return None
    quartiles: list[float] = []
    if len(sequences.lengths):
        quartiles = np.quantile(sequences.lengths, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return {
        "num_sequences": len(sequences.lengths),
        "num_tokens": int(sequences.lengths.sum()),
        "num_targets": sequences.num_targets,
        "num_cut": sequences.num_cut,
        "length_quartiles": quartiles,
    }


def _packing_json(plan: Packing | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    figures = {"utilisation": plan.utilisation, "idle": plan.idle, "ess": plan.ess, "note": plan.note}
    return {**plan.meta, "num_packs": plan.num_packs, **figures}


def _training_json(curve: TrainingCurve | None) -> dict[str, Any] | None:
    if curve is None:
        return None
    losses = curve.losses.tolist()
    return {
        "num_steps": len(losses),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "num_tokens": curve.num_tokens,
        "seconds": curve.seconds,
    }
