"""How a recipe names a model that it talks to, and one that it trains."""

from __future__ import annotations

from pydantic import Field, model_validator

from longalign_core.config.base import Section, Source


class ChatModel(Section):
    """A model reached through the chat interface: generator, judge or candidate.

    Its endpoint belongs to the runtime. With `checkpoint` set and no endpoint for the role, it is
    served on this machine for as long as the stage runs.
    """

    model: str = Field(min_length=1, description="Model name sent with every request.")
    checkpoint: Source | None = Field(
        default=None,
        description="Local folder with weights, to serve here; null for a hosted model.",
    )
    temperature: float | None = Field(
        default=1.0, ge=0, le=2, description="Sampling temperature; 0 is greedy; null for models that take none."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling mass.")
    max_tokens: int = Field(default=4096, ge=1, description="Longest reply, in tokens.")
    context_tokens: int = Field(default=200_000, ge=1, description="The model's window, in tokens, prompt and reply.")

    @model_validator(mode="after")
    def _reply_fits(self) -> ChatModel:
        if self.max_tokens >= self.context_tokens:
            raise ValueError(
                f"max_tokens {self.max_tokens} leaves no room for a prompt in context_tokens "
                f"{self.context_tokens}; lower the first"
            )
        return self
