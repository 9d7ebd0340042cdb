"""Tiny random models, token stores and plans for the training tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from longalign_core.batch_plan import BatchPlan, EpochOrder
from longalign_core.config.training import Optimizer, TrainingConfig
from longalign_core.token_store import TokenStore, TokenStoreWriter

VOCABULARY = 61
CHAT_TEMPLATE = "{% for m in messages %}w3 {{ m.content }} w1 {% endfor %}"


def write_model(folder: Path, *, tied: bool = False, dropout: float = 0.0, seed: int = 0) -> Path:
    """A two-layer Llama with grouped query heads, in fp32, with a word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        attention_dropout=dropout,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w0", eos_token="w1", unk_token="w2")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return folder


def write_tokens(folder: Path, lengths: Sequence[int], *, seed: int = 0, vocabulary: int = VOCABULARY) -> TokenStore:
    """Random sequences; a random half of the tokens after the first are targets, the last always."""
    draw = np.random.default_rng(seed)
    with TokenStoreWriter(folder) as writer:
        for length in lengths:
            is_target = draw.random(length) < 0.5
            is_target[0], is_target[-1] = False, True
            writer.append(draw.integers(0, vocabulary, length), is_target)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)  # as the stage `encode` leaves it
    return TokenStore.open(folder)


def write_plan(
    folder: Path,
    store: TokenStore,
    packs: Sequence[Sequence[int]],
    *,
    packs_per_step: int,
    alpha: float = 1.0,
    epochs: int = 1,
) -> BatchPlan:
    """A plan that puts each list of sequences into a slot."""
    return BatchPlan.write(
        folder,
        strategy="naive",
        capacity=64,
        packs_per_step=packs_per_step,
        alike=packs_per_step,
        alpha=alpha,
        normaliser="step",
        seed=0,
        lengths=store.lengths,
        targets=store.targets,
        epochs=[EpochOrder.of_packs(packs)] * epochs,
    )


def training_config(base_model: Path, **changes) -> TrainingConfig:
    """An fp32 config with a learning rate that moves a tiny model."""
    values = {
        "base_model": str(base_model),
        "precision": "fp32",
        "optimizer": Optimizer(learning_rate=1e-2, clip_norm=1.0),
    }
    return TrainingConfig(**(values | changes))
