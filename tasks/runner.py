"""The Prefect form of the runner: every stage a task run, artifacts passed between them as arrows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed, State
from pydantic import BaseModel
from typing_extensions import override

from longalign_core.config import Runtime
from longalign_core.errors import LongAlignError, WaitingError
from longalign_core.execution import describe, done, execute, open_context
from longalign_core.progress import listening
from longalign_core.runner import Runner, addresses_of
from longalign_core.stage import Artifact, Stage
from tasks.engine import engine_of
from tasks.pictures import show_product
from tasks.progress import PrefectProgress

Input = Artifact | Sequence[Artifact]


# The store is the only cache: it is asked before any work, and Prefect's own would not see config.
@task(cache_policy=NO_CACHE, persist_result=False, retries=0)
def carry_out(
    artifact: Artifact, stage: Stage[Any], config: BaseModel, inputs: dict[str, Input], runtime: Runtime
) -> Artifact | State[Any]:
    """Carry one stage out, or find it done.

    A user's mistake ends the task as failed with its sentence; a traceback is kept for our bugs. Replies
    that are still to come are no failure: they end it in a state named Waiting.
    """
    progress = PrefectProgress()
    log = get_run_logger()
    try:
        with listening(progress), engine_of(runtime):
            manifest, found = execute(
                stage,
                config,
                addresses_of(inputs),
                open_context(runtime),
                label=artifact.label,
                expected=artifact.address,
            )
    except LongAlignError as error:
        return state_of(error)
    finally:
        progress.close()
    log.info("%s %s (%s)", "found" if found else "committed", manifest.address, describe(manifest.counts))
    show_product(manifest, open_context(runtime).store)
    return done(artifact)


class PrefectRunner(Runner):
    """Carries every stage out as a task run of the current flow run."""

    @override
    def _bring_about(
        self, artifact: Artifact, stage: Stage[Any], config: BaseModel, inputs: dict[str, Input]
    ) -> Artifact:
        # A direct call: a task behind `submit` leaves its subprocesses behind when the run is cancelled.
        state = _named(artifact)(artifact, stage, config, inputs, self.context.runtime, return_state=True)
        return self._take(state)

    @override
    def _bring_all_about(
        self, work: list[tuple[Artifact, BaseModel]], stage: Stage[Any], inputs: dict[str, Input]
    ) -> list[Artifact]:
        if not stage.parallel:
            return super()._bring_all_about(work, stage, inputs)
        futures = [
            _named(artifact).submit(artifact, stage, config, inputs, self.context.runtime) for artifact, config in work
        ]
        wait(futures)
        return [self._take(future.state) for future in futures]

    def _take(self, state: State[Any]) -> Artifact:
        artifact: Artifact | WaitingError = state.result()  # raises what the task failed with
        if isinstance(artifact, WaitingError):
            raise artifact
        self._observe(artifact, self.context.store.require(artifact.address), False)
        return artifact


def state_of(error: LongAlignError) -> State[Any]:
    """How a run ends that did not come to its end: failed, or waiting for what another run collects."""
    if isinstance(error, WaitingError):
        return Completed(name="Waiting", message=str(error), data=error)
    return Failed(message=str(error), data=error)


def _named(artifact: Artifact) -> Any:
    name = f"{artifact.stage} {artifact.label}".strip()
    return carry_out.with_options(name=name, task_run_name=name, tags=[artifact.stage])
