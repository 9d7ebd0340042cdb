"""Recipe sections of the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from longalign_core.config.base import Section, Source
from longalign_core.config.models import ChatModel


class Candidate(Section):
    """How the model under test is asked."""

    temperature: float = Field(default=0.0, ge=0, le=2, description="Sampling temperature; 0 is greedy.")
    max_tokens: int = Field(default=1024, ge=1, description="Longest reply, in tokens.")
    context_tokens: int = Field(default=65_536, ge=16, description="Window used; longer prompts lose their middle.")


class LongBenchChatConfig(Section):
    """Questions over long documents in LongBench-Chat's form, judged with scored examples."""

    kind: Literal["longbench_chat"] = "longbench_chat"
    name: str = Field(
        default="longbench_chat",
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="Name on the scorecard.",
    )
    questions: Source = Field(description="JSON list of {idx, prompt, query, answer}, the user's copy.")
    few_shots: Source = Field(description="JSON list: for each question three {answer, score}, scored by people.")
    judge_prompt: Source = Field(description="Judge template with nine positional {} slots.")
    repeats: int = Field(default=2, ge=1, description="Times each answer is judged.")


class NeedleConfig(Section):
    """One sentence hidden at several depths of texts of several lengths."""

    kind: Literal["needle"] = "needle"
    name: str = Field(default="needle", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name on the scorecard.")
    haystack: Source = Field(description="Folder of text files, joined in name order.")
    needle: str = Field(description="The sentence that is hidden.")
    question: str = Field(description="What is asked.")
    expected: str = Field(description="Words of the needle that a right reply holds.")
    lengths: tuple[int, ...] = Field(min_length=1, description="Prompt lengths, in the candidate's tokens.")
    depths: tuple[float, ...] = Field(min_length=1, description="Where the needle stands, 0 start to 1 end.")

    @model_validator(mode="after")
    def _depths_are_fractions(self) -> NeedleConfig:
        if wrong := [depth for depth in self.depths if not 0 <= depth <= 1]:
            raise ValueError(f"needle depths {wrong} are not between 0 and 1; give fractions of the text")
        return self


Suite = Annotated[LongBenchChatConfig | NeedleConfig, Field(discriminator="kind")]


class SuiteRun(Section):
    """One suite with everything its verdicts depend on: what the `evaluate` stage is given."""

    suite: Suite
    candidate: Candidate
    judge: ChatModel | None


class ScorecardConfig(Section):
    """What the scorecard says beside its figures: what the `scorecard` stage is given."""

    name: str = Field(description="Name of the run, its title.")
    gate: float | None = Field(description="Lowest mean score of the first suite that passes; null for no gate.")
    notice: str = Field(default="", description="What a reader must know before the figures; empty shows none.")


class EvaluationConfig(Section):
    """The suites and who judges them."""

    candidate: Candidate = Field(default=Candidate(), description="How the model under test is asked.")
    judge: ChatModel | None = Field(default=None, description="The judging model; null when no suite needs one.")
    suites: tuple[Suite, ...] = Field(default=(), description="What the checkpoint is tested on.")
    gate: float | None = Field(
        default=None,
        description="Lowest mean score of the first suite that passes; null shows it without a gate.",
    )
    notice: str = Field(
        default="", description="Shown at the top of the scorecard: what a reader must know before its figures."
    )

    @model_validator(mode="after")
    def _suites_can_run(self) -> EvaluationConfig:
        names = [suite.name for suite in self.suites]
        if len(names) != len(set(names)):
            raise ValueError(f"suites share a name: {names}; give each its own")
        if self.judge is None and any(suite.kind == "longbench_chat" for suite in self.suites):
            raise ValueError("a longbench_chat suite needs evaluation.judge; name the judging model")
        if self.candidate.max_tokens >= self.candidate.context_tokens:
            raise ValueError(
                f"candidate.max_tokens {self.candidate.max_tokens} leaves no room for a prompt in context_tokens "
                f"{self.candidate.context_tokens}; lower the first"
            )
        room = self.candidate.context_tokens - self.candidate.max_tokens
        for suite in self.suites:
            if suite.kind == "needle" and max(suite.lengths) > room:
                raise ValueError(
                    f"{suite.name} has prompts of {max(suite.lengths)} tokens, but candidate.context_tokens less "
                    f"max_tokens leaves {room}; lower its lengths or raise context_tokens"
                )
        return self

    def runs(self) -> tuple[SuiteRun, ...]:
        """One `evaluate` config a suite; a suite that needs no judge does not depend on it."""
        return tuple(
            SuiteRun(
                suite=suite,
                candidate=self.candidate,
                judge=self.judge if suite.kind == "longbench_chat" else None,
            )
            for suite in self.suites
        )

    def scorecard(self, name: str) -> ScorecardConfig:
        """The `scorecard` stage's config.

        Args:
            name: The recipe's name.
        """
        return ScorecardConfig(name=name, gate=self.gate, notice=self.notice)
