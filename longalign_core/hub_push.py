"""What of an artifact is pushed to the hub, as far as the licences of its texts allow."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Column, Table

from longalign_core.errors import InputError
from longalign_core.execution import Context
from longalign_core.records import SourceLicence
from longalign_core.sources import HUB, parse_hub_id
from longalign_core.stages.dataset_card import CARD, dataset_card, stated_licences
from longalign_core.stages.licences import LICENCES, NOT_STATED, read_licences
from longalign_core.stages.model_card import front_matter, with_licence
from longalign_core.store import Manifest

MANIFEST = "manifest.json"
_TITLES = {"mixture": "LongAlign training mixture", "instruct": "LongAlign long instructions"}
_DATASET = ("conversations.parquet", LICENCES, "mixture.json")
_JSON_LINES, _REJECTS = "conversations.jsonl", "rejects.parquet"
_MODEL_CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- long-context
- longalign
---

# {name}

A language model fine-tuned with LongAlign to follow instructions over long inputs: its checkpoint {label}, artifact
`{address}`. `manifest.json` names what it was made from. The licence of the model that it was trained from goes on to
it. It was not tested for safety; what it says may be wrong.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """What the person who pushes asks for.

    Attributes:
        private: Make the repository private, and refuse one that is public.
        branch: Branch that the commit goes to; it is made where it is not there.
        with_json_lines: Add the conversations as JSON lines, too.
        with_rejects: Add the records that were left out, with their reasons.
        despite: Sources whose texts may not be passed on, and are pushed to a private repository all the same.
        licence: The hub's licence identifier for a model; only for checkpoints.
    """

    private: bool = False
    branch: str = "main"
    with_json_lines: bool = False
    with_rejects: bool = False
    despite: tuple[str, ...] = ()
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What would be pushed where.

    Attributes:
        kind: Kind of the repository.
        files: Name in the repository and file on this machine, in name order.
        known: Names that a push of this kind may leave in a repository; stale ones are removed.
        licences: Of the sources; those of a model's training data, whose texts are not in it.
    """

    hub_id: str
    kind: Literal["dataset", "model"]
    files: tuple[tuple[str, Path], ...]
    known: frozenset[str]
    licences: tuple[SourceLicence, ...]
    address: str

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for _, path in self.files)


def prepare_push(context: Context, address: str, hub_id: str, options: PushOptions) -> Push:
    """Collect what is pushed and check that it may be; nothing leaves this machine.

    Of a set of conversations these are the conversations, the card, the licences and the manifest without
    this machine's names and paths; of a checkpoint all its files, with a card where it has none.

    Raises:
        InputError: The hub id or an option is wrong, the stage's products are no dataset and no model, or
            the licences do not allow it.
        MissingArtifactError: There is no such artifact.
    """
    _check_hub_id(hub_id)
    manifest = context.store.require(address)
    if manifest.stage not in (*_TITLES, "checkpoint"):
        raise InputError(
            f"{address} is neither a set of conversations nor a model; push an artifact of mixture, instruct or "
            "checkpoint"
        )
    folder = context.store.fetch(manifest)
    made = context.runtime.scratch / "push" / address
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    (made / MANIFEST).write_bytes(_public(manifest).to_bytes())
    if manifest.stage == "checkpoint":
        return _model(manifest, folder, made, hub_id, options)
    if options.licence:
        raise InputError("--licence is for checkpoints: conversations have the licences of their sources")
    licences = tuple(read_licences(folder))
    check_licences(licences, options)
    names = [*_DATASET, *((_JSON_LINES,) * options.with_json_lines), *((_REJECTS,) * options.with_rejects)]
    files = {name: folder / name for name in names if (folder / name).is_file()} | {MANIFEST: made / MANIFEST}
    files[CARD] = folder / CARD
    if not files[CARD].is_file():  # made before products had cards
        (made / CARD).write_text(dataset_card(folder, title=_TITLES[manifest.stage]), encoding="utf-8")
        files[CARD] = made / CARD
    known = frozenset({*_DATASET, _JSON_LINES, _REJECTS, CARD, MANIFEST})
    return Push(
        hub_id=hub_id,
        kind="dataset",
        files=tuple(sorted(files.items())),
        known=known,
        licences=licences,
        address=address,
    )


def check_licences(licences: Sequence[SourceLicence], options: PushOptions) -> None:
    """Refuse what the licences of the texts do not allow.

    Texts that may not be passed on go nowhere, but for a private repository where every such source is named.
    Texts whose licence nobody stated go to a private repository only. A stated licence is not judged:
    whether it allows passing on is what a source's `redistributable` says.

    Raises:
        InputError: It is not allowed; the message names the sources.
    """
    forbidden = [one.source for one in licences if one.redistributable is False]
    if unnamed := [name for name in forbidden if name not in options.despite]:
        raise InputError(
            f"texts of {', '.join(unnamed)} may not be passed on (redistributable: false in the recipe); leave them "
            "out of the recipe, or, where you are allowed to keep a copy on the hub for yourself, add --private "
            f"{' '.join(f'--despite {name}' for name in unnamed)}"
        )
    if unknown := sorted(set(options.despite) - set(forbidden)):
        raise InputError(
            f"--despite {', '.join(unknown)}: this artifact has no such source whose texts may not be passed on; "
            f"it has {', '.join(forbidden) or 'none'}"
        )
    if forbidden and not options.private:
        raise InputError(
            f"texts of {', '.join(forbidden)} may not be passed on, so --despite works with --private only; add it"
        )
    if options.private:
        return
    unstated = [one.source for one in licences if one.redistributable is None and None in stated_licences(one)]
    if unstated or not licences:
        of_what = f"texts of {', '.join(unstated)}" if unstated else "this artifact"
        raise InputError(
            f"no licence is stated for {of_what}; state it in the recipe (licence, or redistributable: true) and run "
            "again, or push to a private repository with --private"
        )


def _model(manifest: Manifest, folder: Path, made: Path, hub_id: str, options: PushOptions) -> Push:
    card = folder / CARD
    if not (options.private or options.licence or front_matter(card).get("license")):
        raise InputError(
            "a model stands under the licence of the model it was trained from, which is not known here; give it with "
            "--licence, such as --licence apache-2.0, or push to a private repository with --private"
        )
    files = {entry.path: folder / entry.path for entry in manifest.files} | {MANIFEST: made / MANIFEST}
    if CARD not in files or options.licence:
        text = (
            card.read_text(encoding="utf-8")
            if CARD in files
            else _MODEL_CARD.format(
                name=hub_id.split("/")[1], label=manifest.label or manifest.key, address=manifest.address
            )
        )
        (made / CARD).write_text(with_licence(text, options.licence) if options.licence else text, encoding="utf-8")
        files[CARD] = made / CARD
    return Push(
        hub_id=hub_id, kind="model", files=tuple(sorted(files.items())), known=frozenset(),
        licences=tuple(read_licences(folder)), address=manifest.address,
    )  # fmt: skip


def _public(manifest: Manifest) -> Manifest:
    """The manifest without what it says of this machine: paths, endpoints, its name."""
    kept = ("commit", "packages", "python", "seconds", "time")
    made = {name: value for name, value in manifest.provenance.items() if name in kept}
    return manifest.model_copy(update={"runtime": {}, "provenance": made})


def _check_hub_id(hub_id: str) -> None:
    try:
        parts = parse_hub_id(f"{HUB}{hub_id}")
    except InputError:
        parts = {"set": "none"}
    if parts["set"] or parts["revision"]:
        raise InputError(f"{hub_id!r} is no repository of the hub; write organisation/name")


def push_table(push: Push) -> RenderableType:
    """Files with their sizes, and licences, for people."""
    files = Table("file", Column("bytes", justify="right"), title=f"{push.kind} {push.hub_id}", title_justify="left")
    for name, path in push.files:
        files.add_row(name, f"{path.stat().st_size:,}")
    if not push.licences:
        return files
    licences = Table("source", "licence", "may be passed on")
    for one in push.licences:
        names = ", ".join(sorted(name or NOT_STATED for name in stated_licences(one)))
        licences.add_row(one.source, names, {True: "yes", False: "no", None: NOT_STATED}[one.redistributable])
    return Group(files, licences)
