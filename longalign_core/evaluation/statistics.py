"""Mean scores with intervals; what has no score is counted apart and never enters as a number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from longalign_core.records import Verdict

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanEstimate:
    """A mean over questions.

    Attributes:
        mean: None when no question has a score.
        low: Lower end of the interval; None below two scored questions.
        high: Upper end.
        num_scored: Questions with a score.
        num_unscored: Questions without one.
    """

    mean: float | None
    low: float | None
    high: float | None
    num_scored: int
    num_unscored: int

    @property
    def coverage(self) -> str:
        """What the interval means, in a sentence."""
        left_out = f"{self.num_unscored} unscored left out" if self.num_unscored else "none left out"
        if self.low is None:
            return f"No interval: {self.num_scored} scored questions, {left_out}; an interval needs two."
        return (
            f"{CONFIDENCE * 100:.0f} % t interval over {self.num_scored} questions ({left_out}). It covers the spread "
            "of questions like these and of their repeated judgements, not a judge's own bias."
        )


def question_scores(verdicts: Iterable[Verdict]) -> dict[str, float | None]:
    """Each question's score: the mean over its scored verdicts; None when it has none."""
    scores: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        scores[verdict.question_id].extend([] if verdict.score is None else [verdict.score])
    return {question: float(np.mean(given)) if given else None for question, given in scores.items()}


def estimate_mean(scores: Sequence[float | None], *, minimum: float, maximum: float) -> MeanEstimate:
    """Mean over questions with a Student t interval, which ends at the scale's ends.

    Args:
        scores: One a question; None is unscored.
        minimum: Lowest score of the scale.
        maximum: Highest.
    """
    scored = np.array([score for score in scores if score is not None], dtype=np.float64)
    num_unscored = len(scores) - len(scored)
    mean = float(scored.mean()) if len(scored) else None
    low = high = None
    if mean is not None and len(scored) > 1:
        margin = t_quantile((1 + CONFIDENCE) / 2, len(scored) - 1) * float(scored.std(ddof=1)) / len(scored) ** 0.5
        low, high = max(minimum, mean - margin), min(maximum, mean + margin)
    return MeanEstimate(mean=mean, low=low, high=high, num_scored=len(scored), num_unscored=num_unscored)


def t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t, for a probability of at least one half.

    With t = sqrt(v) tan(angle), the distribution function is an integral of cos(angle)^(v-1), taken
    here over a fine grid: good to six digits, and no dependency for one number.
    """
    angles = np.linspace(0.0, np.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp(2 * probability - 1, mass / mass[-1], angles)
    return float(freedom**0.5 * np.tan(angle))
