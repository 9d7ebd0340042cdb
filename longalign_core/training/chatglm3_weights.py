"""ChatGLM3's folder as one of GlmForCausalLM: `python -m longalign_core.training.chatglm3_weights SOURCE FOLDER`.

Weights are renamed and the joint projection of queries, keys and values is cut in three; no number
changes. A file is held in memory at a time. Files of pickled tensors are read as data: nothing in them runs.
"""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GlmConfig, GlmForCausalLM

from longalign_core.chatglm3.folder import glm_config
from longalign_core.chatglm3.tokenizer import write_tokenizer
from longalign_core.errors import InputError

_WHOLE = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "transformer.output_layer.weight": "lm_head.weight",
}
_IN_LAYER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "self_attention.dense.weight": "self_attn.o_proj.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
    "mlp.dense_h_to_4h.weight": "mlp.gate_up_proj.weight",
    "mlp.dense_4h_to_h.weight": "mlp.down_proj.weight",
}
_LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.(.+)")
_JOINT = re.compile(r"self_attention\.query_key_value\.(weight|bias)")
_ROTARY = "transformer.rotary_pos_emb.inv_freq"  # worked out anew


def convert(source: Path, folder: Path) -> None:
    """Write the converted model and tokenizer. The folder appears under its name only when whole.

    Raises:
        InputError: The source is no ChatGLM3 as it was published.
    """
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    values = glm_config(source, write_tokenizer(source, unfinished))
    (unfinished / "config.json").write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
    stops = {name: values[name] for name in ("eos_token_id", "pad_token_id")}
    (unfinished / "generation_config.json").write_bytes(orjson.dumps(stops, option=orjson.OPT_INDENT_2))
    _write_weights(_weight_files(source), GlmConfig(**values), unfinished)
    unfinished.replace(folder)


def _weight_files(source: Path) -> list[tuple[Path, Callable[[Path], dict[str, Tensor]]]]:
    for pattern, read in (("*.safetensors", load_file), ("pytorch_model*.bin", _load_bin)):
        if files := sorted(source.glob(pattern)):
            return [(file, read) for file in files]
    raise InputError(f"{source.name} holds no weights (*.safetensors or pytorch_model*.bin); download the whole folder")


def _load_bin(file: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except Exception as error:  # whatever torch raises for a file that holds more than tensors
        raise InputError(
            f"{file.name} cannot be read as plain tensors ({str(error).splitlines()[0]}); download it anew, or give "
            "the weights as safetensors"
        ) from error
    return state


def _write_weights(
    files: list[tuple[Path, Callable[[Path], dict[str, Tensor]]]], config: GlmConfig, folder: Path
) -> None:
    with torch.device("meta"):
        missing = {name: tensor.shape for name, tensor in GlmForCausalLM(config).state_dict().items()}
    index: dict[str, str] = {}
    size = 0
    for number, (file, read) in enumerate(files, start=1):
        name = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        tensors = dict(_converted(read(file), config))
        for own, tensor in tensors.items():
            if missing.pop(own, None) != tensor.shape:
                raise InputError(f"{file.name} has a {own} of shape {tuple(tensor.shape)}, unlike its config.json")
            size += tensor.nbytes
        save_file(tensors, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, name)
    if missing:
        raise InputError(f"the weights lack {', '.join(sorted(missing)[:3])}; download the whole folder")
    (folder / "model.safetensors.index.json").write_bytes(
        orjson.dumps({"metadata": {"total_size": size}, "weight_map": index}, option=orjson.OPT_INDENT_2)
    )


def _converted(state: dict[str, Tensor], config: GlmConfig) -> Iterator[tuple[str, Tensor]]:
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    for name, tensor in state.items():
        if name == _ROTARY:
            continue
        layer = _LAYER.fullmatch(name)
        if layer is None and name in _WHOLE:
            yield _WHOLE[name], tensor.contiguous()
        elif layer and (joint := _JOINT.fullmatch(layer[2])):
            parts = tensor.split([heads * size, groups * size, groups * size])
            for letter, part in zip("qkv", parts, strict=True):
                # A copy: parts of one tensor would be refused as sharing memory.
                yield f"model.layers.{layer[1]}.self_attn.{letter}_proj.{joint[1]}", part.clone()
        elif layer and layer[2] in _IN_LAYER:
            yield f"model.layers.{layer[1]}.{_IN_LAYER[layer[2]]}", tensor.contiguous()
        else:
            raise InputError(f"the weights hold {name}, which is none of ChatGLM3's; give the folder as published")


def main(arguments: list[str]) -> int:
    """Convert; what is wrong with the source is the last line of the output, and the exit code is 2."""
    source, folder = map(Path, arguments)
    try:
        convert(source, folder)
    except InputError as error:
        print(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
