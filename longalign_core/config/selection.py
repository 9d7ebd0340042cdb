"""Recipe section `selection`: which documents are drawn."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from longalign_core.config.base import Section, Source, added


class SelectionConfig(Section):
    """Which documents are drawn, by token length."""

    tokenizer: Source = Field(description="Folder or hub id of the tokenizer that lengths are counted with.")
    min_tokens: int = Field(default=8_192, ge=1, description="Shortest document drawn, in tokens.")
    max_tokens: int = Field(default=65_536, ge=1, description="Longest document drawn, in tokens.")
    num_buckets: int = Field(
        default=7,
        ge=1,
        description="Equal length ranges between min_tokens and max_tokens; the draw is even over them.",
    )
    num_documents: int = Field(default=10_000, ge=1, description="Documents to draw.")
    chinese_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Fraction of documents in Chinese; null takes them as they come.",
    )
    corpus_shares: dict[str, float] | None = added(
        None,
        description="Fraction of the documents from each corpus, by name, summing to 1; corpora that are not named "
        "give none. Numbers of documents, languages and lengths come first. Null takes corpora as they come.",
    )
    seed: int = Field(default=0, description="Seed of the draw.")

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> SelectionConfig:
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}; "
                "lower the first or raise the second"
            )
        return self

    @field_validator("corpus_shares")
    @classmethod
    def _shares_are_a_whole(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        if shares is None:
            return None
        if wrong := sorted(name for name, share in shares.items() if not share > 0):
            raise ValueError(f"corpus_shares of {', '.join(wrong)} are not above 0; leave out corpora that give none")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"corpus_shares sum to {sum(shares.values()):.6g}; make them sum to 1")
        return shares
