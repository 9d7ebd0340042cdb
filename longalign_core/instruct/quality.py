"""Whether an answer may be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from longalign_core.config.quality import QualityConfig
from longalign_core.instruct.replies import EMPTY, REFUSAL, Fault, is_refusal


def fault_of_answer(
    answer: str, question: str, texts: Sequence[str], language: str, quality: QualityConfig
) -> Fault | None:
    """Why an answer is of no use; None when it is.

    Args:
        answer: The model's words.
        question: What was asked, without the document.
        texts: The documents it is about.
        language: Of the documents, ISO 639-1.
        quality: What is checked.
    """
    if not answer.strip():
        return Fault(EMPTY, f"to a question of {len(question)} characters")
    if is_refusal(answer):
        return Fault(REFUSAL, f"{len(answer)} characters")
    return None
