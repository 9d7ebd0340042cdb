"""Encoding conversations over long documents, against `tokenizers` alone and against `datasets.map`."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tokenizers import decoders
from transformers import PreTrainedTokenizerFast

from benchmarks.ingest_inputs import paragraphs
from benchmarks.ingest_peers import train_tokenizer
from benchmarks.measuring import Comparison, compare
from longalign_core.chat_format import ChatFormat, EncodedConversation
from longalign_core.config.batching import EncodingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.record_files import in_groups, write_records
from longalign_core.records import Conversation, Message
from longalign_core.stages.encoding import encode
from longalign_core.token_store import TokenStore

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_DOCUMENT_CHARACTERS = (75_000, 135_000)
"""About 16,000 to 32,000 tokens of English text."""
_CHARACTERS_AT_ONCE = 1_000_000
"""As the stage `encode` hands them on."""
_MAX_TOKENS = 1 << 20
"""No document is cut: both sides encode the same tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingFigures:
    """What encoding took.

    Attributes:
        tokenizers: `ChatFormat.encode` against `encode_batch` of the same texts with its ids read.
        datasets_map: The stage, from parquet to a token store, against `datasets.map` from parquet to Arrow a row at
            a time, as it does unless told and as TRL's trainer has it, with ids and the mask of the assistant's
            tokens, as a token store has them.
        datasets_map_batched: The same in batches, which the tokenizer shares among the cores.
        datasets_map_batched_without_mask: The same with ids alone.
        tokens: Of all documents.
        bytes_per_token: Of all that the stage leaves behind.
    """

    tokenizers: Comparison
    datasets_map: Comparison
    datasets_map_batched: Comparison
    datasets_map_batched_without_mask: Comparison
    tokens: int
    bytes_per_token: float


def measure_encoding(folder: Path, *, num_documents: int, vocabulary: int, turns: int) -> EncodingFigures:
    """Encode the same conversations in all ways."""
    chats = conversations(num_documents)
    write_records(folder / "conversations.parquet", chats, Conversation)
    tokenizer_folder = _save_tokenizer(folder / "tokenizer", vocabulary)
    stage = _stage(folder, tokenizer_folder)
    with_tokenizers = _compare_with_tokenizers(chats, tokenizer_folder, turns)
    by_row, batched, without_mask = (
        compare(stage, _datasets_map(folder, tokenizer_folder, mask=mask, batched=in_batches), turns=turns)
        for mask, in_batches in ((True, False), (True, True), (False, True))
    )
    size = sum(file.stat().st_size for file in (folder / "tokens").rglob("*") if file.is_file())
    tokens = int(TokenStore.open(folder / "tokens").lengths.sum())
    return EncodingFigures(
        tokenizers=with_tokenizers,
        datasets_map=by_row,
        datasets_map_batched=batched,
        datasets_map_batched_without_mask=without_mask,
        tokens=tokens,
        bytes_per_token=size / tokens,
    )


def conversations(number: int, seed: int = 0) -> list[Conversation]:
    """A question and its answer about each of so many long documents, all of real paragraphs."""
    chance = random.Random(seed)
    known = paragraphs()
    chats = []
    for place in range(number):
        wanted, parts = chance.uniform(*_DOCUMENT_CHARACTERS), list[str]()
        while sum(map(len, parts)) < wanted:
            parts += chance.choices(known, k=20)
        question = Message(role="user", content="\n\n".join([*parts, "What does the text say about this?"]))
        answer = Message(role="assistant", content="\n\n".join(chance.choices(known, k=4)).strip())
        chats.append(
            Conversation(id=str(place), messages=(question, answer), source="c4", task_type="qa", language="en")
        )
    return chats


def _save_tokenizer(folder: Path, vocabulary: int) -> Path:
    tokenizer = train_tokenizer(vocabulary)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=CHATML)
    fast.save_pretrained(folder)
    return folder


def _compare_with_tokenizers(chats: list[Conversation], folder: Path, turns: int) -> Comparison:
    """In groups as the stage makes them. The peer is handed the text as the template lays it out."""
    chat_format = ChatFormat.load(folder)
    fast = PreTrainedTokenizerFast.from_pretrained(folder)
    groups = list(in_groups(chats, _num_characters, _CHARACTERS_AT_ONCE))
    texts = [[fast.apply_chat_template(_plain(chat), tokenize=False) for chat in group] for group in groups]
    backend = fast.backend_tokenizer

    def ours() -> int:
        found = (one for group in groups for one in chat_format.encode(group, _MAX_TOKENS))
        return sum(len(one.token_ids) for one in found if isinstance(one, EncodedConversation))

    def peer() -> int:
        encodings = (one for group in texts for one in backend.encode_batch(group, add_special_tokens=False))
        return sum(len(one.ids) for one in encodings)

    return compare(ours, peer, turns=turns)


def _stage(folder: Path, tokenizer: Path) -> Callable[[], int]:
    """The stage, from parquet to a token store."""
    config = EncodingConfig(tokenizer=str(tokenizer), max_tokens=_MAX_TOKENS)
    runtime = Runtime(store=str(folder / "store"), scratch=folder / "scratch")

    def run() -> int:
        shutil.rmtree(folder / "tokens", ignore_errors=True)
        (folder / "tokens").mkdir()
        return int(encode.function(config, {"conversations": (folder,)}, folder / "tokens", runtime)["tokens"])

    return run


def _datasets_map(folder: Path, tokenizer: Path, *, mask: bool, batched: bool) -> Callable[[], int]:
    """`datasets.map` with the tokenizer's chat template, from parquet to Arrow."""
    import datasets
    import pyarrow.compute as pc

    datasets.disable_progress_bars()
    numbers = count()
    fast = PreTrainedTokenizerFast.from_pretrained(tokenizer)

    def tokenize(batch: dict[str, Any]) -> dict[str, Any]:
        options = {"return_dict": True, "return_assistant_tokens_mask": mask}
        found = dict(fast.apply_chat_template(batch["messages"], tokenize=True, **options))
        return {name: values for name, values in found.items() if name != "attention_mask"}

    def run() -> int:
        nonlocal fast
        fast = PreTrainedTokenizerFast.from_pretrained(tokenizer)  # as the stage does
        cache = folder / f"arrow-{next(numbers)}"
        rows = datasets.Dataset.from_parquet(str(folder / "conversations.parquet"), cache_dir=str(cache))
        names = rows.column_names
        encoded = rows.map(tokenize, batched=batched, remove_columns=names, load_from_cache_file=False)
        tokens = int(pc.sum(pc.list_value_length(encoded.data["input_ids"])).as_py())
        del rows, encoded
        shutil.rmtree(cache)
        return tokens

    return run


def _plain(chat: Conversation) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in chat.messages]


def _num_characters(chat: Conversation) -> int:
    return sum(len(message.content) for message in chat.messages)
