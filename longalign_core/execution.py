"""Carry one stage out: look, lock, fetch, work, commit. The same for every runner."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel

from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError, LongAlignError, StoreError
from longalign_core.provenance import provenance
from longalign_core.sources import Sources
from longalign_core.stage import Artifact, Counts, Stage, artifact_key, identity, publishing, recording_settings
from longalign_core.store import Manifest, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What every stage of a run shares."""

    store: Store
    runtime: Runtime
    sources: Sources


def open_context(runtime: Runtime, *, resolve_hub: bool = True) -> Context:
    """The store and sources of a runtime.

    Raises:
        InputError: The store's URL is no store.
        StoreError: The scratch folder cannot be used.
    """
    try:
        runtime.scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot use the scratch folder {runtime.scratch}: {error.strerror}; set LONGALIGN_SCRATCH to a folder "
            "that can be written"
        ) from error
    store = open_store(runtime)
    return Context(store, runtime, Sources(store, runtime, resolve_hub=resolve_hub))


def open_store(runtime: Runtime) -> Store:
    """The store of a runtime; nothing is contacted yet. Raises InputError when its URL is no store."""
    return Store(runtime.store, runtime.scratch / "fetched")


def address_of(
    stage: Stage[Any], config: BaseModel, inputs: Mapping[str, Sequence[str]], context: Context
) -> tuple[dict[str, Any], str]:
    """Identity and key of what a stage would make of known inputs.

    Raises:
        LongAlignError: A source has no fingerprint.
    """
    made_of = identity(stage, config, {name: list(one) for name, one in inputs.items()}, context.sources)
    return made_of, artifact_key(made_of)


def execute(
    stage: Stage[Any],
    config: BaseModel,
    inputs: Mapping[str, Sequence[str]],
    context: Context,
    *,
    label: str = "",
    expected: str | None = None,
) -> tuple[Manifest, bool]:
    """Make an artifact, or find it made.

    A scratch lock keeps a second process of this machine out, a lease in the store one of another
    machine. The scratch folder is stable, so a killed stage goes on where it was.

    Args:
        stage: What to carry out.
        config: Its section of the recipe.
        inputs: Addresses by name; they must be in the store.
        context: Store, runtime and sources.
        label: Which of several products of the stage.
        expected: The address that was planned; None where nothing was.

    Returns:
        The manifest, and whether it was there already.

    Raises:
        InputError: A source changed since the address was planned, or while it was read.
        LongAlignError: The stage or the store failed; nothing looks done.
    """
    made_of, key = address_of(stage, config, inputs, context)
    address = f"{stage.name}/{key}"
    if expected is not None and address != expected:
        raise _changed(stage, label)
    work = context.runtime.scratch / "work" / stage.name / key
    if manifest := _finished(address, context):
        log.info("%s%s: found %s", stage.name, f" {label}" if label else "", address)
        _forget(work)
        return manifest, True
    work.parent.mkdir(parents=True, exist_ok=True)
    with (
        _scratch_lock(work),
        context.store.lease(address, lambda: context.store.find(address) is not None),
    ):
        if manifest := _finished(address, context):
            return manifest, True
        folders = {
            name: tuple(context.store.fetch(context.store.require(one)) for one in addresses)
            for name, addresses in inputs.items()
        }
        log.info("%s%s: making %s", stage.name, f" {label}" if label else "", address)
        work.mkdir(exist_ok=True)
        started = time.monotonic()
        partial = context.store.partial(address)
        try:
            with (
                recording_settings() as settings,
                publishing(_ProductPublisher(address, inputs, context, settings), address, partial),
            ):
                counts = stage.function(config, folders, work, context.runtime)
            if address_of(stage, config, inputs, open_context(context.runtime))[1] != key:
                shutil.rmtree(work, ignore_errors=True)
                raise _changed(stage, label)
        except OSError as error:
            if isinstance(error, LongAlignError):
                raise
            raise StoreError(
                f"{stage.name} could not read or write its files: {error}; "
                f"check space and rights of the scratch folder {context.runtime.scratch}, then run again"
            ) from error
        manifest = context.store.commit(
            work,
            made_of,
            key,
            label=label,
            counts=counts,
            runtime=recorded_runtime(context.runtime) | settings,
            provenance=provenance(time.monotonic() - started),
        )
        with suppress(StoreError):
            partial.clear()
        shutil.rmtree(work, ignore_errors=True)
    log.info("%s%s: committed %s (%s)", stage.name, f" {label}" if label else "", address, describe(manifest.counts))
    return manifest, False


def _changed(stage: Stage[Any], label: str) -> InputError:
    name = f"{stage.name} {label}".strip()
    return InputError(
        f"a source of {name} changed during the run, so its product would not be what its address says; "
        "run again once nothing writes there"
    )


@contextmanager
def _scratch_lock(work: Path) -> Iterator[None]:
    """One process of this machine at a time in a scratch folder."""
    lock = FileLock(_lock_file(work))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting for another process of this machine that works at %s/%s", work.parent.name, work.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _forget(work: Path) -> None:
    """Remove what a process left that was killed between its commit and its end."""
    if work.is_dir():
        with suppress(Timeout), FileLock(_lock_file(work), timeout=0):
            shutil.rmtree(work, ignore_errors=True)


def _lock_file(work: Path) -> Path:
    return work.with_name(f"{work.name}.lock")


def describe(counts: Counts) -> str:
    """Counts as one short line; the parts of a count (`rejects: too short`) stand in brackets behind it."""
    parts: dict[str, list[str]] = {}
    for name, value in counts.items():
        whole, _, part = name.partition(": ")
        if part and whole in parts:
            parts[whole].append(f"{_plain(value)} {part}")
        else:
            parts[name] = [f"{_plain(value)} {name}"]
    shown = (first + (f" ({', '.join(rest)})" if rest else "") for first, *rest in parts.values())
    return ", ".join(shown).replace("_", " ")


def _plain(value: int | float | str) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _finished(address: str, context: Context) -> Manifest | None:
    manifest = context.store.find(address)
    if manifest is not None:
        context.store.check_files(manifest)
    return manifest


@dataclass(frozen=True)
class _ProductPublisher:
    """Commits products of other stages that a running stage makes on its way."""

    parent: str
    inputs: Mapping[str, Sequence[str]]
    context: Context
    settings: Mapping[str, Any]

    def publish(self, stage: Stage[Any], config: BaseModel, label: str, folder: Path, counts: Counts) -> Artifact:
        made_of, key = address_of(stage, config, {self.parent.split("/")[0]: [self.parent]}, self.context)
        address, store = f"{stage.name}/{key}", self.context.store
        # The lease also keeps `gc` away from what is being uploaded.
        with store.lease(address, lambda: store.find(address) is not None):
            manifest = _finished(address, self.context) or store.commit(
                folder,
                made_of,
                key,
                label=label,
                counts=counts,
                runtime=recorded_runtime(self.context.runtime) | dict(self.settings),
                provenance=provenance(0.0),
            )
        log.info("%s %s: committed %s", stage.name, label, manifest.address)
        return Artifact(stage=stage.name, key=key, label=label, done=True)

    def ancestors(self) -> list[Manifest]:
        """See `Publisher`."""
        return ancestors(self.context.store, (one for addresses in self.inputs.values() for one in addresses))

    def file_of(self, manifest: Manifest, name: str) -> Path | None:
        """See `Publisher`."""
        return self.context.store.fetch_file(manifest, name)


def ancestors(store: Store, addresses: Iterable[str]) -> list[Manifest]:
    """Artifacts and everything they are made from, the nearest first, each once."""
    found: dict[str, Manifest] = {}
    todo = list(addresses)
    while todo:
        address = todo.pop(0)
        if address not in found:
            found[address] = store.require(address)
            todo += [one for inputs in found[address].inputs.values() for one in inputs]
    return list(found.values())


def recorded_runtime(runtime: Runtime) -> dict[str, Any]:
    """The runtime as a manifest keeps it. It holds no keys by construction."""
    return runtime.model_dump(mode="json")


def done(artifact: Artifact) -> Artifact:
    """The same reference, known to be in the store."""
    return replace(artifact, done=True)
