"""What a model's answer must be to become training data: checks by rule, and by a judge."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longalign_core.config.base import Section
from longalign_core.config.models import ChatModel


class QualityConfig(Section):
    """Checks of an answer by rules alone. Two Chinese characters count as one word throughout.

    Empty replies, and those that the endpoint itself reports as cut short or filtered, are never kept.
    """

    refusals: bool = Field(
        default=True, description="Leave out answers that refuse, or that are the message of a content filter."
    )
    leftovers: bool = Field(
        default=True,
        description="Leave out answers with control tokens or with a further turn of a dialogue, unless document or "
        "question have them too.",
    )
    unfinished: bool = Field(
        default=True, description="Leave out answers that plainly break off: in a code block, after a comma, at 'the'."
    )
    wrong_language: bool = Field(
        default=True,
        description="Leave out answers in another language than the document's. Code, and answers of fewer than "
        "twenty letters, have none; a question that names a language may be answered in it.",
    )
    min_words: int = Field(default=1, ge=1, description="Shortest answer, in words.")
    max_words: int | None = Field(default=20_000, ge=1, description="Longest answer, in words; null sets no bound.")
    max_copied_words: int | None = Field(
        default=250,
        ge=20,
        description="Longest passage that an answer may take over word for word, in words; null sets no bound.",
    )
    max_copied_share: float | None = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Largest share of an answer's words that stand in runs of eight words taken from the document, "
        "0 to 1, unless the question asks for a quotation; null sets no bound.",
    )
    quoted_words: int = Field(
        default=120,
        ge=0,
        description="So many words of the document may always be quoted, whatever their share of the answer.",
    )
    max_repeated_share: float | None = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Largest share of an answer's words that stand in runs of eight words that it had already, 0 to 1; "
        "looked at from 60 words on. Null lets an answer repeat itself.",
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> QualityConfig:
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(
                f"max_words {self.max_words} is below min_words {self.min_words}, so no answer passes; raise the first"
            )
        return self


class GroundingConfig(Section):
    """A judge reads question, answer and the document's passages nearest to both, never the whole document."""

    judge: ChatModel = Field(description="The model that judges; one call an answer.")
    passages: int = Field(default=8, ge=1, le=100, description="Passages shown to the judge.")
    passage_words: int = Field(default=200, ge=20, le=4_000, description="Length of a passage, in words.")
    verdict: Literal["answer", "claims"] = Field(
        default="claims",
        description="Whether the judge says yes or no to the whole answer, or counts its claims and those supported.",
    )
    min_supported: float = Field(
        default=0.8, ge=0, le=1, description="Smallest share of supported claims, 0 to 1; unused with verdict 'answer'."
    )
    unscored: Literal["reject", "keep"] = Field(
        default="reject", description="What becomes of an answer when the judge gave no readable verdict, asked twice."
    )
