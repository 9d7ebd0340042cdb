"""Whether two tokenizers give the same ids to the same tokens, read off their files in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from longalign_core.errors import InputError


def check_same_vocabulary(tokenizer: Path, base_model: Path) -> None:
    """Refuse to train a model on ids that mean other tokens to it. Folders without tokenizer.json are let through.

    A token that only the base model has does no harm.

    Args:
        tokenizer: Folder that conversations are encoded with.
        base_model: Folder of the model that is trained on them.

    Raises:
        InputError: An id of the first is another token in the second, or none.
    """
    files = [folder / "tokenizer.json" for folder in (tokenizer, base_model)]
    if tokenizer == base_model or not all(file.is_file() for file in files):
        return
    first, second = (file.read_bytes() for file in files)
    if first == second:
        return
    theirs = _tokens_by_id(second)
    for number, token in sorted(_tokens_by_id(first).items()):
        if theirs.get(number) != token:
            other = f"is {theirs[number]!r}" if number in theirs else "does not exist"
            raise InputError(
                f"encoding.tokenizer {tokenizer.name} and training.base_model {base_model.name} disagree: token id "
                f"{number} is {token!r} in the first and {other} in the second; let encoding.tokenizer be the base "
                "model's own"
            )


def _tokens_by_id(file: bytes) -> dict[int, str]:
    try:
        content: dict[str, Any] = orjson.loads(file)
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):
            tokens = {number: token for token, number in vocabulary.items()}
        else:  # Unigram: pieces with their scores, in the order of their ids
            tokens = {number: piece[0] for number, piece in enumerate(vocabulary)}
        return tokens | {added["id"]: added["content"] for added in content.get("added_tokens") or ()}
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return {}  # a damaged file is refused where the tokenizer is loaded
