"""Recipe sections of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from longalign_core.config.base import Section, Source, added
from longalign_core.config.batching import MOST_TOKENS


class Optimizer(Section):
    """AdamW with a warm-up and a decay."""

    learning_rate: float = Field(default=2e-5, gt=0, description="Peak learning rate.")
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="Decay after the warm-up.")
    warmup_fraction: float = Field(default=0.03, ge=0, lt=1, description="Fraction of the steps spent warming up.")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="Adam's first decay.")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="Adam's second decay.")
    epsilon: float = Field(default=1e-8, gt=0, description="Adam's epsilon.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")
    clip_norm: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")


class ExtensionConfig(Section):
    """Context extension before fine-tuning: slower rotary positions and continued pre-training."""

    enabled: bool = Field(default=False, description="Whether the base model is extended first.")
    method: Literal["rope_base", "yarn"] = added(
        "rope_base",
        description="How positions are slowed down: a larger RoPE base, or YaRN, whose factor is context_tokens "
        "divided by the base model's own context.",
    )
    rope_factor: float = Field(
        default=200.0, gt=1, description="Factor on the RoPE base (10,000 to 2,000,000 at 200); not for YaRN."
    )
    context_tokens: int = Field(
        default=65_536, ge=16, le=MOST_TOKENS, description="Context length trained for, in tokens."
    )
    num_tokens: int = Field(default=10_000_000_000, ge=1, description="Tokens of continued pre-training.")
    packs_per_step: int = Field(default=8, ge=1, description="Packs of context_tokens that make one optimizer step.")
    optimizer: Optimizer = Field(default=Optimizer(), description="Optimizer of the continued pre-training.")
    seed: int = Field(default=0, ge=0, description="Seed of the data order.")


class Lora(Section):
    """Low-rank adapters beside frozen weights. What is published has them merged into the weights."""

    rank: int = Field(default=16, ge=1, description="Rank of an adapter.")
    alpha: int = Field(default=32, ge=1, description="An adapter's product counts alpha / rank times.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Probability of dropping an adapter's input.")
    target_modules: tuple[str, ...] = Field(
        default=(),
        description="Ends of the names of the linear layers that get one (q_proj, v_proj); none means all but the "
        "output layer. Experts that a model keeps in one tensor get none.",
    )
    keep_adapter: bool = Field(
        default=False, description="Whether each checkpoint holds the adapter by itself too, in the folder adapter/."
    )


class TrainingConfig(Section):
    """Supervised fine-tuning."""

    base_model: Source = Field(description="Folder or hub id of the base model (safetensors).")
    precision: Literal["bf16", "fp32"] = Field(default="bf16", description="Numbers the model computes in.")
    optimizer: Optimizer = Field(default=Optimizer(), description="Optimizer and schedule.")
    keep_steps: tuple[int, ...] = Field(
        default=(), description="Optimizer steps whose model is published beside the final one."
    )
    keep_every_steps: int | None = added(
        None, ge=1, description="Publish the model after every so many optimizer steps, too; null for none."
    )
    keep_every_epochs: float | None = added(
        None,
        gt=0,
        description="Publish the model after every so many epochs, too: 1 at the end of each, 0.5 also halfway; null "
        "for none.",
    )
    trust_remote_code: bool = Field(default=False, description="Run model code that comes with the weights.")
    seed: int = Field(default=0, description="Seed of everything random in training (dropout, new adapters).")
    lora: Lora | None = added(None, description="Train low-rank adapters instead of all weights; null for all weights.")


class ExtensionRun(Section):
    """The extension with everything its model depends on: what the `extend` stage is given."""

    extension: ExtensionConfig
    base_model: Source
    precision: Literal["bf16", "fp32"]
    trust_remote_code: bool


class CheckpointConfig(Section):
    """Which model of a training run."""

    step: int | Literal["final"] = Field(description="Optimizer steps done, or the last.")


class ExternalCheckpoint(Section):
    """A model that was trained elsewhere; its address depends on its files alone."""

    folder: Source
