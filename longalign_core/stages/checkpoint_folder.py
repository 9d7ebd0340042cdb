"""A folder with a model that was trained elsewhere, checked before it is taken in. Needs no torch, and runs no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from longalign_core.errors import InputError

# What is taken of a folder; optimizer states, logs and other forms of the weights stay behind.
TAKEN = (
    "*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "*.py",
    "README.md", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*",
)  # fmt: skip
_NOT_TAKEN = ("trainer_state.json", "training_args.json", "optimizer.safetensors")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_STATES = ("optimizer", "scheduler", "rng_state", "training_args")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken")
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_INDEX = "model.safetensors.index.json"


def taken_files(folder: Path) -> list[Path]:
    """The model's own files in a folder, in name order."""
    found = {path for pattern in TAKEN for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and path.name[0] != "." and path.name not in _NOT_TAKEN)


def check_checkpoint(folder: Path) -> int:
    """Refuse a folder that transformers or vLLM would not load, or would have to run code to load.

    Returns:
        Bytes of its weights.

    Raises:
        InputError: It is no causal language model, its weights are pickled or not whole, or it has no tokenizer.
    """
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise InputError(
                f"{folder} holds an adapter, no model; merge it into its base model (peft's merge_and_unload) and "
                "publish what save_pretrained writes of that"
            )
        raise InputError(
            f"{folder} holds no model: it has no config.json; name a folder as transformers' save_pretrained writes it"
        )
    config = _read_object(folder / "config.json")
    architectures = config.get("architectures")
    if not isinstance(config.get("model_type"), str) or not isinstance(architectures, list) or not architectures:
        raise InputError(
            f"config.json of {folder} names no model_type and architectures, by which loaders find the model's class; "
            "save the model again with save_pretrained"
        )
    if not str(architectures[0]).endswith(_CAUSAL):
        raise InputError(f"{folder} holds a {architectures[0]}, which is no causal language model; name another")
    if not any(path for pattern in _TOKENIZERS for path in folder.glob(pattern)):
        raise InputError(f"{folder} lacks a tokenizer (tokenizer.json); copy the tokenizer's files beside the weights")
    return _check_weights(folder)


def vocabulary_of(folder: Path) -> int | None:
    """Token ids that a model knows; None where its config does not say."""
    config = _read_object(folder / "config.json")
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    return size if isinstance(size, int) else None


def _check_weights(folder: Path) -> int:
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        pickled = (path for pattern in _PICKLED for path in folder.glob(pattern))
        if any(not path.name.startswith(_STATES) for path in pickled):
            raise InputError(
                f"the weights of {folder} are pickled, which can run code when they are loaded; load them where you "
                "trust them and save them again as safetensors (save_pretrained does), then publish that"
            )
        raise InputError(f"{folder} lacks weights (*.safetensors); copy them there")
    tensors = {shard.name: _tensors(shard) for shard in shards}
    if (folder / _INDEX).is_file():
        where = _read_object(folder / _INDEX).get("weight_map")
        if not isinstance(where, dict):
            raise InputError(f"{_INDEX} of {folder} has no weight_map; copy it again")
        if absent := sorted(set(where.values()) - set(tensors)):
            raise InputError(f"{folder} lacks {', '.join(absent[:3])} ({len(absent)} in all), which {_INDEX} names; "
                             "copy them there")  # fmt: skip
        if lost := sorted(name for name, file in where.items() if name not in tensors[file]):
            raise InputError(
                f"{where[lost[0]]} of {folder} lacks {lost[0]}, which {_INDEX} places there; copy it again"
            )
    elif [shard.name for shard in shards] != ["model.safetensors"]:
        raise InputError(
            f"{folder} has weights in {len(shards)} files but no {_INDEX}; copy it there, or name the only file "
            "model.safetensors"
        )
    return sum(shard.stat().st_size for shard in shards)


def _tensors(shard: Path) -> set[str]:
    """Names of the tensors in a file that is as long as it says."""
    try:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = shard.stat().st_size
            header = orjson.loads(file.read(length) if 0 < length <= size - 8 else b"")
        header.pop("__metadata__", None)
        end = max((one["data_offsets"][1] for one in header.values()), default=0)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{shard} is no whole safetensors file; copy it again") from error
    if size != 8 + length + end:
        raise InputError(f"{shard} has {size:,} bytes but its header says {8 + length + end:,}; copy it again")
    return set(header)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path} is no whole JSON; copy it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is no JSON object; copy it again")
    return values
