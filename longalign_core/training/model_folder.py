"""The trained model as a folder that `from_pretrained` loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

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


def save_model(
    model: PackedLossModel, state: dict[str, Any] | None, config: TrainingConfig, base_model: Path, folder: Path
) -> None:
    """Write a folder that `from_pretrained` loads: weights, config, the base model's tokenizer.

    The folder appears under its name only when whole.

    Args:
        model: The trained model.
        state: Its gathered weights by the names they have in `model`; None where the model holds them itself.
        config: How it was trained: adapters are merged into the weights.
        base_model: Folder the tokenizer files are taken from, as they are.
        folder: Where to write.
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
    model.model.save_pretrained(unfinished, state_dict=state)
    for pattern in TOKENIZER_FILES:
        for file in base_model.glob(pattern):
            if file.is_file():
                shutil.copyfile(file, unfinished / file.name)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
