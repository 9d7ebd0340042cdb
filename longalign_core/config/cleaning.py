"""Recipe section `cleaning`: what is removed across corpora."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longalign_core.config.base import Section, Source, added


class ProtectedTexts(Section):
    """A benchmark's texts that no document may hold, beside those of the recipe's own suites."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Named in the rejects.")
    location: Source = Field(
        description="A file or folder: *.txt hold a text each; in *.json and *.jsonl every string is a text."
    )


class CleaningConfig(Section):
    """Removal across corpora."""

    exact_duplicates: bool = Field(
        default=True,
        description="Keep the first of documents that are equal but for case and white space.",
    )
    near_duplicates: float | None = added(
        None,
        ge=0.3,
        le=1,
        description=(
            "Keep the longest of documents whose runs of five words have at least this Jaccard similarity, 0 to 1; "
            "null keeps all."
        ),
    )
    containment: float | None = added(
        None,
        ge=0.3,
        le=1,
        description=(
            "Leave out documents of a thousand words or more when a longer one holds at least this part of their runs "
            "of five words, 0 to 1, as with cut-off copies; null keeps all."
        ),
    )
    decontamination_words: int | None = added(
        None,
        ge=5,
        le=50,
        description=(
            "Leave out documents that hold a run of so many words (two Chinese characters count as one) of a question "
            "or reference of the evaluation, which must then be at hand when the dataset is made; null keeps all."
        ),
    )
    decontamination_share: float = added(
        0.1,
        gt=0,
        le=1,
        description=(
            "Leave out documents that have at least this fraction of such runs, of the shorter of both, in common "
            "with a long protected text: a benchmark's document."
        ),
    )
    protected: tuple[ProtectedTexts, ...] = added(
        (), description="More texts that no document may hold, beside those of evaluation.suites."
    )

    @model_validator(mode="after")
    def _protected_texts_are_used(self) -> CleaningConfig:
        if self.protected and self.decontamination_words is None:
            raise ValueError(
                "cleaning.protected names texts, but decontamination_words is null, so nothing is done with them; "
                "set it, to 13 say, or drop the texts"
            )
        names = [one.name for one in self.protected]
        if len(names) != len(set(names)):
            raise ValueError(f"cleaning.protected share a name: {names}; give each its own")
        return self


class ProtectedSource(Section):
    """One source of protected texts.

    Attributes:
        form: "questions" as LongBench-Chat has them, a "haystack" of essays, or any "texts".
        phrases: Short texts that the recipe itself holds.
    """

    name: str
    form: Literal["questions", "haystack", "texts"]
    location: Source
    phrases: tuple[str, ...] = ()


class ProtectionConfig(Section):
    """What no training document may hold: what the `protect` stage is given."""

    words: int
    sources: tuple[ProtectedSource, ...]
