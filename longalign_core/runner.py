"""Runners: the same pipeline planned, carried out here, or required to exist.

The pipeline is written once over a `Runner`. All runners compute addresses in the same way; they
differ in what they do at an address that is not in the store.
"""

from __future__ import annotations

import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import BaseModel

from longalign_core.errors import InputError, LongAlignError, MissingArtifactError
from longalign_core.execution import Context, address_of, done, execute
from longalign_core.sources import UnpinnedSourceError
from longalign_core.stage import Artifact, Stage
from longalign_core.store import Manifest

Input = Artifact | Sequence[Artifact]
Observer = Callable[[Artifact, Manifest, bool], None]


class PipelineEnd(Exception):  # noqa: N818 -- not an error: the stage asked for with --until is reached
    """The last stage that was asked for is done."""


class Runner(ABC):
    """Does with each stage what its form says, and remembers every artifact in order.

    Attributes:
        artifacts: Everything the pipeline came to, in order.
    """

    def __init__(self, context: Context, *, until: str | None = None, observer: Observer | None = None) -> None:
        """Set up.

        Args:
            context: Store, runtime and sources of the run.
            until: Name of the last stage to carry out; None for all.
            observer: Told of every artifact with its manifest, and whether it was found.
        """
        self.context = context
        self.artifacts: list[Artifact] = []
        self._until = until
        self._observer = observer

    def __call__(self, stage: Stage[Any], config: BaseModel, *, label: str = "", **inputs: Input) -> Artifact:
        """Bring one stage about.

        Raises:
            PipelineEnd: It was the last one asked for.
        """
        return self._finish(
            stage, [self._bring_about(self._locate(stage, config, label, inputs), stage, config, inputs)]
        )[0]

    def map(self, stage: Stage[Any], configs: Mapping[str, BaseModel], **inputs: Input) -> tuple[Artifact, ...]:
        """Bring a stage about once for each config, by label, in parallel where the form allows it."""
        located = [self._locate(stage, config, label, inputs) for label, config in configs.items()]
        work = list(zip(located, configs.values(), strict=True))
        return self._finish(stage, self._bring_all_about(work, stage, inputs))

    def _locate(self, stage: Stage[Any], config: BaseModel, label: str, inputs: dict[str, Input]) -> Artifact:
        unknown = [one for one in _flat(inputs) if one.key is None]
        if unknown:
            first = f"{unknown[0].stage} {unknown[0].label}".strip()
            return Artifact(stage=stage.name, key=None, label=label, waits_for=first)
        _, key = address_of(stage, config, addresses_of(inputs), self.context)
        return Artifact(stage=stage.name, key=key, label=label)

    def _finish(self, stage: Stage[Any], artifacts: list[Artifact]) -> tuple[Artifact, ...]:
        self.artifacts += artifacts
        if stage.name == self._until:
            raise PipelineEnd
        return tuple(artifacts)

    def _bring_all_about(
        self, work: list[tuple[Artifact, BaseModel]], stage: Stage[Any], inputs: dict[str, Input]
    ) -> list[Artifact]:
        return [self._bring_about(artifact, stage, config, inputs) for artifact, config in work]

    @abstractmethod
    def _bring_about(
        self, artifact: Artifact, stage: Stage[Any], config: BaseModel, inputs: dict[str, Input]
    ) -> Artifact:
        """Do at one address what this form of the runner does."""

    def _observe(self, artifact: Artifact, manifest: Manifest, found: bool) -> None:
        if self._observer:
            self._observer(artifact, manifest, found)


class PlanRunner(Runner):
    """Computes addresses and nothing else; what cannot be known says what it waits for."""

    def _locate(self, stage: Stage[Any], config: BaseModel, label: str, inputs: dict[str, Input]) -> Artifact:
        try:
            return super()._locate(stage, config, label, inputs)
        except (InputError, UnpinnedSourceError) as error:
            return Artifact(stage=stage.name, key=None, label=label, waits_for=str(error).split(";")[0])

    def _bring_about(
        self, artifact: Artifact, stage: Stage[Any], config: BaseModel, inputs: dict[str, Input]
    ) -> Artifact:
        if artifact.key is None or (manifest := self.context.store.find(artifact.address)) is None:
            return artifact
        self._observe(artifact, manifest, True)
        return done(artifact)


class RequireRunner(Runner):
    """Takes only what is there."""

    def _bring_about(
        self, artifact: Artifact, stage: Stage[Any], config: BaseModel, inputs: dict[str, Input]
    ) -> Artifact:
        manifest = self.context.store.find(artifact.address)
        if manifest is None:
            raise MissingArtifactError(
                f"{artifact.address} ({stage.name} {artifact.label}) is not in the store {self.context.store.url}; "
                f"run the pipeline up to {stage.name} first"
            )
        self._observe(artifact, manifest, True)
        return done(artifact)


class LocalRunner(Runner):
    """Carries every stage out in this process; a mapped stage in parallel threads."""

    def _bring_about(
        self, artifact: Artifact, stage: Stage[Any], config: BaseModel, inputs: dict[str, Input]
    ) -> Artifact:
        manifest, found = execute(
            stage,
            config,
            addresses_of(inputs),
            self.context,
            label=artifact.label,
            expected=artifact.address,
        )
        self._observe(artifact, manifest, found)
        return done(artifact)

    def _bring_all_about(
        self, work: list[tuple[Artifact, BaseModel]], stage: Stage[Any], inputs: dict[str, Input]
    ) -> list[Artifact]:
        if not stage.parallel:
            return super()._bring_all_about(work, stage, inputs)
        with ThreadPoolExecutor(self.context.runtime.workers) as pool:
            futures = [
                pool.submit(contextvars.copy_context().run, self._bring_about, artifact, stage, config, inputs)
                for artifact, config in work
            ]
        failures = [failure for future in futures if (failure := future.exception())]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, LongAlignError)):
            raise failure  # a bug of ours before a user's mistake
        return [future.result() for future in futures]


def _flat(inputs: dict[str, Input]) -> list[Artifact]:
    return [one for value in inputs.values() for one in ([value] if isinstance(value, Artifact) else value)]


def addresses_of(inputs: dict[str, Input]) -> dict[str, list[str]]:
    """Addresses of the inputs by name."""
    return {name: [one.address for one in _flat({name: value})] for name, value in inputs.items()}
