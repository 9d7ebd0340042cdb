"""Recipe section of the mixture: which instruction sets the long conversations are mixed with, and how many."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from pydantic import Field, model_validator

from longalign_core.config.base import Section, Source, added

_SUITE_SIZES: dict[str, int | None] = {"0k": 0, "5k": 5_000, "10k": 10_000, "longalpaca-12k": 0, "all": None}


class InstructionSet(Section):
    """A set of short or external instructions: files here, behind a URL, or a dataset of the hub."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the set, unique in the mixture.")
    location: Source = Field(
        description="File, folder, URL or hub:datasets/org/name@revision. JSON lines, one JSON array a file (both "
        "plain, .gz, .bz2, .xz or .zst) or parquet, with `messages`, ShareGPT's `conversations`, Alpaca's "
        "`instruction` and `output`, or `prompt` and `completion` in each row.",
    )
    files: tuple[str, ...] = added(
        (),
        description="Patterns of the files to read, such as ShareGPT_V3*.json or data/*.parquet; none reads all.",
    )
    language: str = Field(default="en", pattern=r"^[a-z]{2}$", description="ISO 639-1 code of its texts.")
    licence: str | None = Field(default=None, description="SPDX identifier; null when not known.")
    redistributable: bool | None = added(
        None, description="Whether its texts may be passed on; null when not known. False marks what is made from it."
    )
    max_conversations: int | None = Field(default=None, ge=0, description="Cap, drawn by seed; null takes all.")
    share: float | None = added(
        None,
        gt=0,
        le=1,
        description="Fraction of the mixture that it makes up, drawn by seed; the long conversations and the sets "
        "without a share make up the rest. Where every set has one, they come to 1 and none is used up first.",
    )
    markup: Literal["plain", "html"] = added(
        "plain",
        description="html: turns are HTML, as in ShareGPT's uncleaned exports, and become Markdown: paragraphs, lists, "
        "tables, headings and code; links and emphasis leave their words.",
    )
    split_conversations: Literal["separate", "joined"] = added(
        "separate",
        description="joined: rows whose ids are x_0, x_6, … are put together again, as ShareGPT's split exports cut "
        "one conversation x at its turns 0, 6, …; separate: each row is a conversation.",
    )


class MixtureConfig(Section):
    """The training set: long conversations and instruction sets, shuffled."""

    suite: Literal["0k", "5k", "10k", "longalpaca-12k", "all"] = Field(
        default="10k",
        description="How many long conversations: none, 5,000, 10,000; LongAlpaca-12k replaces them by that set, "
        "named in `sets`; all takes every one.",
    )
    sets: tuple[InstructionSet, ...] = Field(default=(), description="Instruction sets mixed in.")
    seed: int = Field(default=0, description="Seed of caps, shares and order.")

    @property
    def num_long(self) -> int | None:
        """How many long conversations the suite takes; None for all."""
        return _SUITE_SIZES[self.suite]

    @property
    def takes_long(self) -> bool:
        """Whether the suite takes any; one that does not needs no generated conversations."""
        return self.num_long != 0

    @property
    def shares(self) -> dict[str, Fraction]:
        """The wanted fractions of the mixture, exact as they are written."""
        return {one.name: Fraction(repr(one.share)) for one in self.sets if one.share is not None}

    @model_validator(mode="after")
    def _names_are_unique(self) -> MixtureConfig:
        names = [one.name for one in self.sets]
        if len(names) != len(set(names)):
            raise ValueError(f"instruction sets share a name: {names}; give each its own")
        if "long" in names:
            raise ValueError("an instruction set is named long, as the long conversations are; give it another name")
        if self.suite == "longalpaca-12k" and "longalpaca" not in names:
            raise ValueError("suite longalpaca-12k needs an instruction set named longalpaca; add it to mixture.sets")
        return self

    @model_validator(mode="after")
    def _shares_can_be_met(self) -> MixtureConfig:
        if not (shares := self.shares):
            return self
        total = float(sum(shares.values()))
        has_rest = self.takes_long or len(shares) < len(self.sets)
        if has_rest and total >= 1:
            raise ValueError(
                f"the shares of {', '.join(shares)} come to {total:g} and leave no room for the conversations without "
                "a share; lower them so that they come to less than 1"
            )
        if not has_rest and total != 1:
            raise ValueError(
                f"every set has a share and they come to {total:g}; make them come to 1, or leave one set without"
            )
        return self
