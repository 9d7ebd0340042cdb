"""Where the model or the tokenizer that a recipe names lies, in a form that transformers' own classes load.

ChatGLM3 exists only as code beside its weights, which does not run here: it is converted once into the
scratch folder. Addresses know it by its source.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from longalign_core.chatglm3.folder import is_chatglm3
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.sources import local_path, weights_fingerprint
from longalign_core.supervise import supervised

log = logging.getLogger(__name__)

_FORM = 1  # of what a conversion writes: another number converts anew


def model_path(source: str, runtime: Runtime) -> Path:
    """Where a base model lies.

    Raises:
        InputError: It is not there, or a ChatGLM that cannot be converted.
    """
    return _usable(source, runtime, "model", _convert_model)


def tokenizer_path(source: str, runtime: Runtime) -> Path:
    """Where a tokenizer lies.

    Raises:
        InputError: It is not there, or a ChatGLM's that cannot be converted.
    """
    return _usable(source, runtime, "tokenizer", _convert_tokenizer)


def _usable(source: str, runtime: Runtime, part: str, convert: Callable[[Path, Path], None]) -> Path:
    folder = local_path(source, runtime)
    if not is_chatglm3(folder):
        return folder
    fingerprint = weights_fingerprint(source, runtime)
    assert fingerprint is not None
    converted = runtime.scratch.absolute() / "converted" / f"{part}-{fingerprint[:16]}-{_FORM}"
    converted.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{converted}.lock"):
        if not converted.is_dir():
            log.info("converting the %s of %s to transformers' GLM class, once, into %s", part, source, converted)
            convert(folder.absolute(), converted)
    return converted


def _convert_tokenizer(folder: Path, converted: Path) -> None:
    from longalign_core.chatglm3.tokenizer import write_tokenizer

    unfinished = converted.with_name(converted.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_tokenizer(folder, unfinished)
    unfinished.replace(converted)


def _convert_model(folder: Path, converted: Path) -> None:
    """In a process of its own: it needs torch, which this one may do without."""
    output = converted.with_name(converted.name + ".log")
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "longalign_core.training.chatglm3_weights", str(folder), str(converted)]
    with supervised(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, log=output) as process:
        code = process.wait()
    if code:
        lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["the log is empty"]
        raise InputError(f"the ChatGLM3 folder {folder} cannot be converted: {lines[-1][:500]}")
