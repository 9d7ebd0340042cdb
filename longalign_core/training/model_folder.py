"""The trained model as a folder that `from_pretrained` loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
from transformers import GenerationConfig

from longalign_core.config.training import TrainingConfig
from longalign_core.training.lora import ADAPTER_FOLDER, merge_adapters, write_adapter
from longalign_core.training.model import PackedLossModel

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "chat_template*",
)
# What its licence asks to be kept beside the weights, and how it is sampled from.
_BESIDE = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", "generation_config.json")
_SHARD_SIZE = "5GB"


def save_model(
    model: PackedLossModel,
    state: dict[str, Any] | None,
    config: TrainingConfig,
    base_model: Path,
    folder: Path,
    *,
    max_shard_size: str = _SHARD_SIZE,
) -> None:
    """Write a folder that `from_pretrained` loads: weights, config, the base model's tokenizer and licence.

    The folder appears under its name only when whole.

    Args:
        model: The trained model.
        state: Its gathered weights by the names they have in `model`; None where the model holds them itself.
        config: How it was trained: adapters are merged into the weights.
        base_model: Folder the tokenizer files are taken from, as they are.
        folder: Where to write.
        max_shard_size: Largest file of weights, in the words of transformers; more are written with an index.
    """
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    if state is not None:
        state = {name.removeprefix("model."): value for name, value in state.items()}
    if config.lora:
        state = state or model.model.state_dict()
        if config.lora.keep_adapter:
            write_adapter(state, config.lora, unfinished / ADAPTER_FOLDER)
        state = merge_adapters(state, config.lora)
    # The base model's own file is taken as it is: transformers refuses to write some that it reads.
    model.model.generation_config = GenerationConfig()
    model.model.save_pretrained(unfinished, state_dict=state, max_shard_size=max_shard_size)
    (unfinished / "generation_config.json").unlink(missing_ok=True)
    _write_config(unfinished / "config.json")
    for pattern in (*TOKENIZER_FILES, *_BESIDE):
        for file in base_model.glob(pattern):
            if file.is_file():
                shutil.copyfile(file, unfinished / file.name)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)


def _write_config(path: Path) -> None:
    """Take out of a saved config what held for training alone, and add what earlier readers look for.

    Before its version 5, transformers, and servers upon it, knew no `rope_parameters`: without the older form
    they would compute other positions and say nothing.
    """
    values = orjson.loads(path.read_bytes())
    for name in ("_name_or_path", "_attn_implementation", "attn_implementation"):
        values.pop(name, None)
    values["use_cache"] = True
    rope = values.get("rope_parameters") or {}
    if "rope_theta" in rope:  # else each kind of layer has its own, which the older form cannot say
        values["rope_theta"] = rope["rope_theta"]
        scaling = {name: value for name, value in rope.items() if name not in ("rope_theta", "partial_rotary_factor")}
        if rope.get("rope_type", "default") != "default":
            values["rope_scaling"] = scaling
        if "partial_rotary_factor" in rope:
            values["partial_rotary_factor"] = rope["partial_rotary_factor"]
    path.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
