"""A stage: a named, versioned function from a config section and input folders to one output folder.

Its address is a hash of what its product depends on, and of nothing else: stage, version, its own
config section (sources by fingerprint), and the addresses of its inputs. Runtime never enters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import orjson
from pydantic import BaseModel

from longalign_core.config.base import is_source
from longalign_core.config.runtime import Runtime
from longalign_core.partial_state import PartialState
from longalign_core.store.manifest import Manifest

Config = TypeVar("Config", bound=BaseModel)
Inputs = Mapping[str, tuple[Path, ...]]
Counts = dict[str, int | float | str]
StageFunction = Callable[[Config, Inputs, Path, Runtime], Counts]


@dataclass(frozen=True)
class Stage(Generic[Config]):
    """One stage of the pipeline.

    Attributes:
        name: First part of its products' addresses.
        version: Raised whenever the same config and inputs would give another product.
        function: `(config, inputs, out_dir, runtime) -> counts`. Inputs are folders, a tuple under
            each name. `out_dir` is a stable scratch folder: what a killed run left there is still
            there, so the stage can go on; everything in it when the function returns is the
            product, except names that begin with a dot.

        parallel: Whether several of it may run at once on one machine. Those that hold a model
            server or a GPU may not.
    """

    name: str
    version: int
    function: StageFunction[Config]
    parallel: bool = False


def stage(name: str, version: int, *, parallel: bool = False) -> Callable[[StageFunction[Config]], Stage[Config]]:
    """Declare a stage function."""

    def declare(function: StageFunction[Config]) -> Stage[Config]:
        return Stage(name, version, function, parallel)

    return declare


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A reference to one product of a stage; small, to be passed between tasks.

    Attributes:
        label: Which of several products of the stage, for people ("books"); may be empty.
        key: 16 hex digits; None while the address cannot be known.
        waits_for: What has to be there before the address can be known; None when it is known.
        done: Whether the store held it when the reference was made.
    """

    stage: str
    key: str | None
    label: str = ""
    waits_for: str | None = None
    done: bool = False

    @property
    def address(self) -> str:
        """`{stage}/{key}`. Only for artifacts whose address is known."""
        assert self.key is not None, f"the address of {self.stage} waits for {self.waits_for}"
        return f"{self.stage}/{self.key}"


class Fingerprinter(Protocol):
    """Turns a source into what stands for its content in an address."""

    def fingerprint(self, source: str) -> str:
        """A digest of what the source holds now. Raises InputError or MissingArtifactError."""


def identity(
    stage: Stage[Any], config: BaseModel, inputs: Mapping[str, list[str]], sources: Fingerprinter
) -> dict[str, Any]:
    """What the key is made of, as canonical JSON values."""
    return {
        "stage": stage.name,
        "version": stage.version,
        "config": _canonical(config, sources),
        "inputs": {name: list(addresses) for name, addresses in sorted(inputs.items())},
    }


def artifact_key(identity: Mapping[str, Any]) -> str:
    """First 16 hex digits of the sha256 over canonical JSON (sorted keys, no white space)."""
    return hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _canonical(config: BaseModel, sources: Fingerprinter) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        extra = field.json_schema_extra
        if isinstance(extra, dict) and "neutral" in extra and value == extra["neutral"]:
            continue
        if is_source(field) and value is not None:
            values[name] = {"fingerprint": sources.fingerprint(value)}
        else:
            values[name] = _canonical_value(value, sources)
    return values


def _canonical_value(value: Any, sources: Fingerprinter) -> Any:
    if isinstance(value, BaseModel):
        return _canonical(value, sources)
    if isinstance(value, tuple | list):
        return [_canonical_value(item, sources) for item in value]
    if isinstance(value, dict):
        return {str(key): _canonical_value(item, sources) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} has no canonical form; use plain values in a config")


class Publisher(Protocol):
    """Commits a product of another stage from within a running one (checkpoints, while training goes on)."""

    def publish(self, stage: Stage[Any], config: BaseModel, label: str, folder: Path, counts: Counts) -> Artifact:
        """Commit `folder` as the product of `stage` whose only input is the running stage's artifact."""

    def ancestors(self) -> list[Manifest]:
        """Everything that the running stage's product is made from, the nearest first."""

    def file_of(self, manifest: Manifest, name: str) -> Path | None:
        """One file of an ancestor, brought here; None where it has no such file."""


_publisher: ContextVar[Publisher] = ContextVar("publisher")
_address: ContextVar[str] = ContextVar("address", default="unnamed")
_partial: ContextVar[PartialState | None] = ContextVar("partial", default=None)
_settings: ContextVar[dict[str, Any] | None] = ContextVar("settings", default=None)


@contextmanager
def publishing(publisher: Publisher, address: str = "unnamed", partial: PartialState | None = None) -> Iterator[None]:
    """Say inside the block which product is being made, and who commits products made on the way.

    Args:
        publisher: Commits them.
        address: The product's.
        partial: Keeps copies of what is unfinished of it; None where nothing does.
    """
    tokens = _publisher.set(publisher), _address.set(address), _partial.set(partial)
    try:
        yield
    finally:
        _partial.reset(tokens[2])
        _publisher.reset(tokens[0])
        _address.reset(tokens[1])


@contextmanager
def recording_settings() -> Iterator[dict[str, Any]]:
    """Collect what stages record inside the block; it goes into the runtime of their products' manifests."""
    settings: dict[str, Any] = {}
    token = _settings.set(settings)
    try:
        yield settings
    finally:
        _settings.reset(token)


def record_setting(name: str, value: Any) -> None:
    """Have the manifest keep a setting, as JSON values, that the stage made of the runtime. It may hold no key."""
    if (settings := _settings.get()) is not None:
        settings[name] = value


def current_publisher() -> Publisher:
    """The publisher of the stage that is running."""
    return _publisher.get()


def current_address() -> str:
    """The address that the stage which is running makes; spending is counted by it."""
    return _address.get()


def current_partial() -> PartialState | None:
    """Keeps copies of what is unfinished of the product being made; None where nothing does."""
    return _partial.get()
