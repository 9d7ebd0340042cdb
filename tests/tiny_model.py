"""A tiny random chat model that loads, trains and serves like a large one; its words mean nothing."""

from __future__ import annotations

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "Long documents hold many facts. Questions ask for some of them!",
    "What does the second chapter say about the price of bread in winter?",
    "一个长文档包含许多事实。问题是什么？答案在第二章。",
    "The answer is close to the reference. Rating: [[7]]",
)


def tiny_tokenizer(folder: Path, *, vocabulary: int = 400) -> Path:
    """Save a byte-level BPE tokenizer with a ChatML template, trained on a few sentences. No torch."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(folder)
    return folder


def tiny_model(folder: Path, *, seed: int = 0, hidden: int = 32, window: int = 4096) -> Path:
    """Save a two-layer random LlamaForCausalLM with its tokenizer; the same weights for the same seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tiny_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=window,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder
