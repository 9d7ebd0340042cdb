"""Recipe sections of the corpora: what is read, what is kept, what is drawn."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longalign_core.config.base import Section, Source

CorpusFormat = Literal["text", "json_lines", "repository", "mediawiki"]


class CorpusConfig(Section):
    """One corpus. Its `ingest` depends on this section and on the files alone."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the corpus, unique in the recipe.")
    format: CorpusFormat = Field(
        description="text: one document a .txt/.rst/.md file. json_lines: one a line, plain or .gz, C4's fields. "
        "repository: one a folder or source archive, its files joined. mediawiki: one an article of a dump."
    )
    location: Source = Field(description="File or folder; relative to the recipe file.")
    language: str = Field(default="en", pattern=r"^[a-z]{2}$", description="ISO 639-1 code of its texts.")
    licence: str | None = Field(default=None, description="SPDX identifier of its texts; null when not known.")
    min_characters: int = Field(default=200, ge=1, description="Shorter documents are rejected, in characters.")
    max_documents: int | None = Field(default=None, ge=1, description="Stop after so many documents; null reads all.")


class CleaningConfig(Section):
    """Removal across corpora."""

    exact_duplicates: bool = Field(
        default=True,
        description="Keep the first of documents that are equal but for case and white space.",
    )


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
    seed: int = Field(default=0, description="Seed of the draw.")

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> SelectionConfig:
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}; "
                "lower the first or raise the second"
            )
        return self
