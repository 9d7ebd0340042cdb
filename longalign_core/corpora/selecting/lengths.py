"""Lengths of documents in tokens."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

from longalign_core.errors import InputError
from longalign_core.record_files import in_groups
from longalign_core.records import Document

# Encodings take about 200 bytes a character while they are in memory.
_BATCH_CHARACTERS = 1 << 19
_HUGE_CHARACTERS = 2 << 20  # counted alone: a tokenizer takes about 200 bytes of memory a character
_BATCH_DOCUMENTS = 256
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_SPLITTERS = {"ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "BertPreTokenizer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Countable:
    """What counting needs of a Document."""

    id: str
    text: str
    source: str
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLength:
    """Length of one document.

    Attributes:
        num_tokens: Without special tokens; None when it was not counted, as the text has too few
            bytes to reach the shortest length wanted.
        num_bytes: Of the UTF-8 text.
    """

    id: str
    source: str
    language: str
    num_tokens: int | None
    num_bytes: int


class TokenCounter(Protocol):
    """Counts tokens.

    Attributes:
        at_most_one_a_byte: Whether no text has more tokens than bytes (and one).
        batches_at_once: Calls that may be open together. More than one keeps every core busy where
            a batch is a few long texts and ends on one of them.
    """

    at_most_one_a_byte: bool
    batches_at_once: int

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens."""


def load_counter(folder: Path) -> TokenCounter:
    """Tokenizer of a model folder, for counting.

    A `tokenizer.json` is used as it is; any other form is loaded by transformers. Code that comes
    with a tokenizer is not run.

    Raises:
        InputError: The folder holds no tokenizer that can be loaded.
    """
    file = folder / "tokenizer.json" if folder.is_dir() else folder
    if file.name == "tokenizer.json" and file.is_file():
        try:
            return _RustCounter(Tokenizer.from_file(str(file)))
        except Exception as error:  # the library raises bare Exception
            raise InputError(
                f"the tokenizer.json of {folder.name!r} cannot be read ({error}); "
                "name a folder with a whole tokenizer in selection.tokenizer"
            ) from None
    return _load_with_transformers(folder)


def count_lengths(
    documents: Iterable[Countable | Document], counter: TokenCounter, min_tokens: int
) -> Iterator[DocumentLength]:
    """Lengths of documents, in their order.

    Texts that have fewer bytes than `min_tokens` are not counted where the tokenizer never gives
    more tokens than bytes: what is drawn is the same as if they were. Documents are read while
    others are counted.
    """
    waiting: deque[Future[list[DocumentLength]]] = deque()
    with ThreadPoolExecutor(counter.batches_at_once) as pool:
        for batch in in_groups(documents, _weight, _BATCH_CHARACTERS):
            is_huge = sum(len(document.text) for document in batch) > _HUGE_CHARACTERS
            while is_huge and waiting:
                yield from waiting.popleft().result()
            waiting.append(pool.submit(_count_batch, batch, counter, min_tokens))
            if is_huge or len(waiting) > counter.batches_at_once:
                yield from waiting.popleft().result()
        for one in waiting:
            yield from one.result()


def _weight(document: Countable | Document) -> int:
    return max(len(document.text), _BATCH_CHARACTERS // _BATCH_DOCUMENTS)


def _count_batch(batch: Sequence[Countable | Document], counter: TokenCounter, min_tokens: int) -> list[DocumentLength]:
    sizes = [len(document.text.encode()) for document in batch]
    hopeless = [counter.at_most_one_a_byte and size + 1 < min_tokens for size in sizes]
    counts = iter(counter.count([document.text for document, skip in zip(batch, hopeless, strict=True) if not skip]))
    return [
        DocumentLength(
            id=document.id,
            source=document.source,
            language=document.language,
            num_tokens=None if skip else next(counts),
            num_bytes=size,
        )
        for document, size, skip in zip(batch, sizes, hopeless, strict=True)
    ]


class _RustCounter:
    batches_at_once = 3

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()  # saved settings of either kind would make every length the same
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.at_most_one_a_byte = _is_byte_level(json.loads(tokenizer.to_str()))

    def count(self, texts: Sequence[str]) -> list[int]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in encodings]


class _TransformersCounter:
    at_most_one_a_byte = False
    batches_at_once = 1  # it changes settings of its own during a call

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def count(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        rows = self._tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in rows]


def _load_with_transformers(folder: Path) -> TokenCounter:
    refusal = InputError(
        f"{folder.name!r} holds no tokenizer that can be loaded; "
        "name a folder with a tokenizer.json in selection.tokenizer"
    )
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise refusal
    from transformers import AutoTokenizer  # seconds to import, and few tokenizers need it

    try:
        return _TransformersCounter(
            AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )
    except (OSError, ValueError, ImportError, KeyError):
        raise refusal from None


def _is_byte_level(tokenizer: dict[str, Any]) -> bool:
    """Whether it is byte-level BPE that neither rewrites nor adds to its input.

    NFC is allowed: documents are in NFC already.
    """
    steps = _kinds(tokenizer["pre_tokenizer"], "pretokenizers")
    return (
        tokenizer["model"]["type"] == "BPE"
        and set(_kinds(tokenizer["normalizer"], "normalizers")) <= {"NFC"}
        and "ByteLevel" in steps
        and set(steps) <= _SPLITTERS
    )


def _kinds(step: dict[str, Any] | None, inner: str) -> list[str]:
    if step is None:
        return []
    return (
        [kind for one in step[inner] for kind in _kinds(one, inner)] if step["type"] == "Sequence" else [step["type"]]
    )
