"""Recipe sections between conversations and training steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from longalign_core.config.base import Section, Source, added

Strategy = Literal["naive", "sorted", "longalign", "bfd", "balanced"]
TemplateName = Literal["plain", "llama-2", "llama-3", "chatglm3", "mistral", "mistral-tekken", "qwen2.5", "qwen3"]


# Longest pack that can be planned; tables of the packers grow with it.
MOST_TOKENS = 2**24


class EncodingConfig(Section):
    """Conversation to token ids and target mask."""

    tokenizer: Source = Field(description="Folder or hub id of the base model's tokenizer.")
    template: TemplateName | None = Field(
        default=None,
        description=(
            "null for the tokenizer's own chat template. For a tokenizer without one, one of ours by the format the "
            "model is to learn or has learnt: llama-2; llama-3 (3.0, without dates); chatglm3; mistral (sentencepiece "
            "tokenizers: 7B v0.3, Mixtral 8x22B, Large); mistral-tekken (NeMo, Ministral); qwen2.5; qwen3 (hybrid "
            "models, without thinking); plain (a base model without control tokens: turns end with its end token)."
        ),
    )
    max_tokens: int = Field(default=65_536, ge=16, description="Longest sequence; longer ones are shortened.")
    shorten: Literal["middle", "right", "drop"] = Field(
        default="middle",
        description="What a document too long loses: its middle (question and answer stay), its end, or its place.",
    )


class BatchingConfig(Section):
    """Sequences to packs to optimizer steps."""

    strategy: Strategy = Field(default="balanced", description="How sequences are put into packs and steps.")
    capacity: int = Field(default=65_536, ge=1, le=MOST_TOKENS, description="Tokens a pack holds.")
    packs_per_step: int = Field(default=8, ge=1, description="Slots that make one optimizer step.")
    alike: int | None = Field(
        default=None,
        ge=1,
        description="Consecutive slots that cost alike; divides packs_per_step; null means all of them.",
    )
    epochs: int = Field(default=2, ge=1, description="Passes over the data, each in a fresh order.")
    alpha: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Loss weight N^-alpha of a target token: 1 weighs sequences alike, 0 tokens.",
    )
    normaliser: Literal["step", "epoch", "pack"] = Field(
        default="step",
        description="What weights are divided by: the step's own sum, the epoch's mean, or each pack's.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of every epoch's order.")
    model: Source | None = added(
        neutral=None,
        description="Folder, config.json or hub id of the model whose costs packs are compared by; "
        "null means those of a round 7B model.",
    )
    cost_profile: Source | None = added(
        neutral=None,
        description="File of packs measured on the machines that will train (lengths and seconds); "
        "null means costs are FLOPs.",
    )

    @model_validator(mode="after")
    def _alike_divides(self) -> BatchingConfig:
        if self.alike is not None and self.packs_per_step % self.alike:
            raise ValueError(
                f"alike {self.alike} does not divide packs_per_step {self.packs_per_step}; choose one of its divisors"
            )
        return self
