"""Bring in a checkpoint that was trained elsewhere, so that it is evaluated and pushed like our own."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from longalign_core.chat_format import ChatFormat
from longalign_core.chat_template import ConversationError
from longalign_core.config.runtime import Runtime
from longalign_core.config.training import ExternalCheckpoint
from longalign_core.errors import InputError, StoreError
from longalign_core.execution import Context, execute, open_context
from longalign_core.named_templates import NAMED_TEMPLATES
from longalign_core.sources import HUB, local_path
from longalign_core.stage import Artifact
from longalign_core.stages.checkpoint_folder import TAKEN, check_checkpoint, taken_files, vocabulary_of
from longalign_core.stages.exported_model import has_template, set_generation, set_template
from longalign_core.stages.training import external_checkpoint
from longalign_core.store import Manifest, Store

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCheckpoint:
    """What became of a checkpoint.

    Attributes:
        manifest: Of its artifact.
        found: Whether the same files were in the store already.
    """

    manifest: Manifest
    found: bool


def publish_checkpoint(
    context: Context, source: str, *, template: str | None = None, name: str | None = None
) -> PublishedCheckpoint:
    """Commit a checkpoint as an artifact; the same files give the same address.

    Args:
        context: Store and runtime.
        source: Folder, or hub id as recipes write it.
        template: Chat template for a model without one, or instead of its own: a name of ours, or a jinja file.
        name: Name in the store that is to point at it from now on.

    Raises:
        InputError: The folder holds no whole model with tokenizer and chat template, or an argument is wrong.
        StoreError: The store cannot be written, or the name was moved by somebody else meanwhile.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise InputError(f"--name {name!r}: a name has small letters, digits, '.', '_' and '-'; choose such a one")
    folder = _located(source, context.runtime)
    check_checkpoint(folder)
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    laid_out = context.runtime.scratch.absolute() / "publish" / digest
    laid_out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{laid_out}.lock"):
        _lay_out(folder, laid_out, template)
        try:
            config = ExternalCheckpoint(folder=str(laid_out))
            # Fingerprints are taken once a run, and the folder is laid out anew each time.
            fresh = open_context(context.runtime)
            manifest, found = execute(external_checkpoint, config, {}, fresh, label=folder.name)
        finally:
            shutil.rmtree(laid_out, ignore_errors=True)
    if name is not None:
        _point(context.store, name, manifest.address)
    return PublishedCheckpoint(manifest=manifest, found=found)


def find_checkpoint(store: Store, name: str) -> Artifact:
    """A checkpoint that is in the store, by its address or the name that was given to it.

    Raises:
        InputError: It is something else, or there is no such name.
        MissingArtifactError: There is no such artifact.
    """
    address = name
    if "/" not in name:
        ref = store.read_ref(name) if _NAME.fullmatch(name) else None
        address = "" if ref is None else str(json.loads(ref[0]).get("address", ""))
    if not address.startswith("checkpoint/"):
        raise InputError(f"{name!r} is no checkpoint; give an address (checkpoint/…), or a name given by `publish`")
    manifest = store.require(address)
    return Artifact(stage=manifest.stage, key=manifest.key, label=manifest.label, done=True)


def _located(source: str, runtime: Runtime) -> Path:
    if source.startswith(HUB):
        return local_path(source, runtime, TAKEN)
    folder = Path(source)
    if not folder.is_dir():
        hint = f", or write {HUB}{source} for the hub's" if source.count("/") == 1 and not folder.exists() else ""
        raise InputError(f"{source} is no folder; name the folder that holds config.json and the weights{hint}")
    return folder.resolve()


def _lay_out(folder: Path, laid_out: Path, template: str | None) -> None:
    """A folder of links to what is taken, and what is changed of it. The user's own files stay as they are."""
    shutil.rmtree(laid_out, ignore_errors=True)
    laid_out.mkdir()
    for file in taken_files(folder):
        (laid_out / file.name).symlink_to(file.resolve())
    named = template if template in NAMED_TEMPLATES else None
    if template is not None and named is None:
        if not Path(template).is_file():
            raise InputError(
                f"--template {template} is neither a file nor one of ours: {', '.join(NAMED_TEMPLATES)}; correct it"
            )
        set_template(laid_out, Path(template).read_text(encoding="utf-8"))
    elif named is None and not has_template(laid_out):
        raise InputError(
            f"{folder} has no chat template; give the one it was trained with by --template: a jinja file, or one of "
            f"{', '.join(NAMED_TEMPLATES)}"
        )
    try:
        chat_format = ChatFormat.load(laid_out, named)
        if named is not None:
            set_template(laid_out, chat_format.template.source)
        set_generation(laid_out, chat_format)
    except (InputError, ConversationError) as error:
        raise InputError(f"tokenizer and chat template of {folder} do not work together: {error}") from error
    vocabulary = vocabulary_of(laid_out)
    if vocabulary is not None and chat_format.vocabulary > vocabulary:
        raise InputError(
            f"the tokenizer of {folder} has ids up to {chat_format.vocabulary - 1} but the model knows {vocabulary}; "
            "put the tokenizer there that it was trained with"
        )


def _point(store: Store, name: str, address: str) -> None:
    wanted, known = json.dumps({"address": address}), store.read_ref(name)
    if known is not None and known[0] == wanted:
        return
    try:
        store.move_ref(name, wanted, None if known is None else known[1])
    except FileExistsError as error:
        raise StoreError(
            f"{address} is published, but the name {name} was moved by somebody else meanwhile; look what it names "
            "now, and publish again if it is yours to move"
        ) from error
