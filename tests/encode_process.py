"""Conversations for tests of `encode`, and a process that encodes them and may be killed."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from longalign_core.config.batching import EncodingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.record_files import write_records
from longalign_core.records import Conversation, Message
from longalign_core.stage import Counts
from longalign_core.stages.encoding import encode_in_ranges

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RANGE_BYTES = 1 << 18
"""So small that a few megabytes have many ranges."""


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of letters and their commonest pairs, with the ChatML template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    controls, letters = ["<|im_start|>", "<|im_end|>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=controls, initial_alphabet=letters)
    tokenizer.train_from_iterator(["what does the document say"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=TEMPLATE)
    fast.save_pretrained(folder)
    return folder


def every_fifth_fails(number: int) -> bool:
    return number % 5 > 0


def write_conversations(
    folder: Path, num_conversations: int, *, answered: Callable[[int], bool] = every_fifth_fails
) -> Path:
    """Conversations of random words; those not answered cannot be encoded."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(100)]

    def conversation(number: int) -> Conversation:
        question = " ".join(draw.choices(words, k=draw.randint(1, 300)))
        answer = " ".join(draw.choices(words, k=20)) if answered(number) else ""
        messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
        return Conversation(id=f"c{number}", messages=messages, source="books", task_type="chat", language="en")

    write_records(folder / "conversations.parquet", map(conversation, range(num_conversations)), Conversation, batch=32)
    return folder


def encode_folder(conversations: Path, tokenizer: Path, out_dir: Path, workers: int) -> Counts:
    config = EncodingConfig(tokenizer=str(tokenizer), max_tokens=256)
    runtime = Runtime(store="unused", workers=workers)
    inputs = {"conversations": (conversations,)}
    return encode_in_ranges(config, inputs, out_dir, runtime, range_bytes=RANGE_BYTES)


if __name__ == "__main__":
    encode_folder(*map(Path, sys.argv[1:]), workers=2)
