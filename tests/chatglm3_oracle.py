"""ChatGLM3 as it is published, tiny and random: its files, and its forward pass from the architecture alone."""

from __future__ import annotations

import math
from pathlib import Path

import orjson
import sentencepiece
import torch

SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "Long documents hold many facts.  Questions ask for some of them!\nAnd a second line: 1,234.5",
    "一个长文档包含许多事实。问题是什么？答案在第二章，第 17 页。",
    "def add(a, b):\n    return a + b\n",
)
SHAPE = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "auto_map": {"AutoModelForCausalLM": "modeling_chatglm.ChatGLMForConditionalGeneration"},
    "num_layers": 2,
    "hidden_size": 24,
    "ffn_hidden_size": 40,
    "kv_channels": 8,
    "num_attention_heads": 4,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "seq_length": 128,
    "layernorm_epsilon": 1e-5,
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "apply_query_key_layer_scaling": True,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "original_rope": True,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "quantization_bit": 0,
    "pre_seq_len": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def train_sentencepiece(folder: Path, **options) -> sentencepiece.SentencePieceProcessor:
    """A byte-pair model of few sentences with ChatGLM3's settings."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "model_type": "bpe",
        "vocab_size": 420,
        "byte_fallback": True,
        "add_dummy_prefix": True,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5), model_prefix=str(folder / "tokenizer"), **(values | options)
    )
    (folder / "tokenizer.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def write_chatglm3(folder: Path, *, files: int = 2, safetensors: bool = False, **changes) -> dict[str, torch.Tensor]:
    """A random model with its tokenizer, in `files` files of pickled tensors. Returns the weights."""
    pieces = train_sentencepiece(folder).vocab_size()
    values = SHAPE | {"padded_vocab_size": pieces + 20} | changes
    (folder / "config.json").write_bytes(orjson.dumps(values))
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps({"tokenizer_class": "ChatGLMTokenizer"}))
    state = random_weights(values)
    names = list(state)
    for number in range(files):
        part = {name: state[name] for name in names[number::files]}
        if safetensors:
            from safetensors.torch import save_file

            save_file(part, folder / f"model-{number + 1:05d}-of-{files:05d}.safetensors")
        else:
            torch.save(part, folder / f"pytorch_model-{number + 1:05d}-of-{files:05d}.bin")
    return state


def random_weights(values: dict) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    hidden, feed, size = values["hidden_size"], values["ffn_hidden_size"], values["kv_channels"]
    width = values["num_attention_heads"] * size
    joint = width + 2 * values["multi_query_group_num"] * size
    state = {
        "transformer.embedding.word_embeddings.weight": random(values["padded_vocab_size"], hidden),
        "transformer.rotary_pos_emb.inv_freq": random(size // 4),
    }
    for layer in range(values["num_layers"]):
        name = f"transformer.encoder.layers.{layer}."
        state |= {
            f"{name}input_layernorm.weight": 1 + random(hidden),
            f"{name}self_attention.query_key_value.weight": random(joint, hidden),
            f"{name}self_attention.query_key_value.bias": random(joint),
            f"{name}self_attention.dense.weight": random(hidden, width),
            f"{name}post_attention_layernorm.weight": 1 + random(hidden),
            f"{name}mlp.dense_h_to_4h.weight": random(2 * feed, hidden),
            f"{name}mlp.dense_4h_to_h.weight": random(hidden, feed),
        }
    state["transformer.encoder.final_layernorm.weight"] = 1 + random(hidden)
    state["transformer.output_layer.weight"] = random(values["padded_vocab_size"], hidden)
    return state


def forward(state: dict[str, torch.Tensor], values: dict, ids: torch.Tensor) -> torch.Tensor:
    """Logits of one sequence in float64, position by position and head by head."""
    state = {name: tensor.double() for name, tensor in state.items()}
    heads, groups, size = values["num_attention_heads"], values["multi_query_group_num"], values["kv_channels"]
    rotated = size // 2

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + values["layernorm_epsilon"])

    def turn(x: torch.Tensor) -> torch.Tensor:
        """Turn neighbouring pairs of the first half of a head by an angle that grows with the position."""
        x = x.clone()
        for position in range(len(x)):
            for pair in range(rotated // 2):
                angle = position / (10_000.0 * values.get("rope_ratio", 1)) ** (2 * pair / rotated)
                a, b = x[position, 2 * pair].clone(), x[position, 2 * pair + 1].clone()
                x[position, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
                x[position, 2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
        return x

    x = state["transformer.embedding.word_embeddings.weight"][ids]
    for layer in range(values["num_layers"]):
        own = {name.split(f"layers.{layer}.")[1]: one for name, one in state.items() if f"layers.{layer}." in name}
        y = norm(x, own["input_layernorm.weight"])
        joint = y @ own["self_attention.query_key_value.weight"].T + own["self_attention.query_key_value.bias"]
        outputs = []
        for head in range(heads):
            group = head // (heads // groups)
            query = turn(joint[:, head * size : (head + 1) * size])
            key_start = heads * size + group * size
            key = turn(joint[:, key_start : key_start + size])
            value = joint[:, key_start + groups * size : key_start + groups * size + size]
            scores = query @ key.T / math.sqrt(size)
            scores = scores.masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -math.inf)
            outputs.append(scores.softmax(-1) @ value)
        x = x + torch.cat(outputs, -1) @ own["self_attention.dense.weight"].T
        y = norm(x, own["post_attention_layernorm.weight"])
        gate, up = (y @ own["mlp.dense_h_to_4h.weight"].T).chunk(2, -1)
        x = x + (gate * torch.sigmoid(gate) * up) @ own["mlp.dense_4h_to_h.weight"].T
    x = norm(x, state["transformer.encoder.final_layernorm.weight"])
    return x @ state["transformer.output_layer.weight"].T
