"""The recipe: what is made. One file holds every section, written out."""

from __future__ import annotations

from pydantic import Field, model_validator

from longalign_core.config.base import Section
from longalign_core.config.batching import BatchingConfig, EncodingConfig
from longalign_core.config.cleaning import CleaningConfig, ProtectedSource, ProtectionConfig
from longalign_core.config.corpora import Corpus
from longalign_core.config.evaluation import EvaluationConfig
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.mixture import MixtureConfig
from longalign_core.config.selection import SelectionConfig
from longalign_core.config.training import ExtensionConfig, ExtensionRun, TrainingConfig


class Recipe(Section):
    """Everything that changes a product of a run. Where and how it runs is the `Runtime`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the run; also of its refs.")
    description: str = Field(default="", description="One sentence for people.")
    corpora: tuple[Corpus, ...] = Field(min_length=1, description="The corpora, read in parallel.")
    cleaning: CleaningConfig
    selection: SelectionConfig
    instruct: InstructConfig
    mixture: MixtureConfig
    encoding: EncodingConfig
    batching: BatchingConfig
    extension: ExtensionConfig
    training: TrainingConfig
    evaluation: EvaluationConfig

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        names = [corpus.name for corpus in self.corpora]
        if len(names) != len(set(names)):
            raise ValueError(f"corpora share a name: {names}; give each its own")
        if unknown := sorted(set(self.selection.corpus_shares or ()) - set(names)):
            raise ValueError(
                f"selection.corpus_shares names {', '.join(unknown)}, which is no corpus of this recipe; "
                f"its corpora are {', '.join(names)}"
            )
        formats = {corpus.name: corpus.format for corpus in self.corpora}
        for task in self.instruct.tasks:
            if unknown := sorted(set(task.corpora or ()) - set(names)):
                raise ValueError(
                    f"task type {task.name} is for {', '.join(unknown)}, which is no corpus of this recipe; "
                    f"its corpora are {', '.join(names)}"
                )
            if task.kind == "code" and (prose := [name for name in task.corpora if formats[name] != "repository"]):
                raise ValueError(
                    f"task type {task.name} is about code, but {prose[0]} has the format {formats[prose[0]]}; "
                    "name corpora of format repository"
                )
        if self.encoding.max_tokens > self.batching.capacity:
            raise ValueError(
                f"encoding.max_tokens {self.encoding.max_tokens} is above batching.capacity {self.batching.capacity}; "
                "lower the first or raise the second"
            )
        if self.cleaning.decontamination_words and not (self.evaluation.suites or self.cleaning.protected):
            raise ValueError(
                "cleaning.decontamination_words is set, but neither evaluation.suites nor cleaning.protected names a "
                "text to protect; name one, or set it to null"
            )
        return self

    @property
    def needs_documents(self) -> bool:
        """Whether any stage has a use for the corpora: long conversations, or a longer context to train."""
        return self.mixture.takes_long or self.extension.enabled

    def extension_run(self) -> ExtensionRun:
        """The `extend` stage's config."""
        return ExtensionRun(
            extension=self.extension,
            base_model=self.training.base_model,
            precision=self.training.precision,
            trust_remote_code=self.training.trust_remote_code,
        )

    def protected_texts(self) -> ProtectionConfig:
        """The `protect` stage's config. Only where `cleaning.decontamination_words` is set."""
        assert self.cleaning.decontamination_words is not None, "nothing is protected"
        suites = tuple(
            ProtectedSource(name=suite.name, form="questions", location=suite.questions)
            if suite.kind == "longbench_chat"
            else ProtectedSource(
                name=suite.name, form="haystack", location=suite.haystack, phrases=(suite.needle, suite.question)
            )
            for suite in self.evaluation.suites
        )
        more = tuple(
            ProtectedSource(name=one.name, form="texts", location=one.location) for one in self.cleaning.protected
        )
        return ProtectionConfig(words=self.cleaning.decontamination_words, sources=suites + more)
