"""Token ids of pieces of a text in which no spelling is a control token."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

from tokenizers import Tokenizer

# In front of every control token's name in the copies: U+10FFFE is no character, and no text should hold it.
UNSPELLED = "\U0010fffe"

# What a piece of text comes after: nothing, a control token, or other text.
After = Literal["nothing", "control", "text"]


class TextTokens:
    """Encodes text as a tokenizer does between control tokens, blind to control tokens that it spells.

    Works on copies of the tokenizer in which each control token has a name that no text may spell (one
    that begins with `UNSPELLED`), with every id as it was. Some tokenizers put a space before a text, or
    before what follows a control token; text that goes on from other text gets none.

    Args:
        backend: The tokenizer.
        controls: Its control tokens, at least one.
    """

    def __init__(self, backend: Tokenizer, controls: Collection[str]) -> None:
        copy = json.loads(backend.to_str())
        copy |= {"truncation": None, "padding": None, "post_processor": None}
        _rename(copy, set(controls))
        self._tokens = Tokenizer.from_str(json.dumps(copy))
        assert all(self._tokens.token_to_id(UNSPELLED + name) == backend.token_to_id(name) for name in controls)
        # Text after a control token is told apart by having one in front.
        self._control = UNSPELLED + min(controls)
        unprefixed = _without_prefix(copy)
        self._adds_prefix = unprefixed != copy
        self._inner = Tokenizer.from_str(json.dumps(unprefixed)) if self._adds_prefix else self._tokens

    def encode(self, texts: Sequence[str], afters: Sequence[After]) -> list[list[int]]:
        """Ids of each text, given what it comes after."""
        if not self._adds_prefix:
            return [encoding.ids for encoding in self._inner.encode_batch_fast(texts, add_special_tokens=False)]
        tokenizers = {"nothing": self._tokens, "control": self._tokens, "text": self._inner}
        ids: list[list[int]] = [[]] * len(texts)
        for after, tokenizer in tokenizers.items():
            places = [place for place, other in enumerate(afters) if other == after]
            lead = self._control if after == "control" else ""
            found = tokenizer.encode_batch_fast([lead + texts[place] for place in places], add_special_tokens=False)
            for place, encoding in zip(places, found, strict=True):
                ids[place] = encoding.ids[1:] if lead else encoding.ids
        return ids

    def spans(self, text: str, after: After) -> list[tuple[int, int]]:
        """Start and end character of each token of a text."""
        tokenizer = self._inner if after == "text" else self._tokens
        if not self._adds_prefix or after != "control":
            found: list[tuple[int, int]] = tokenizer.encode(text, add_special_tokens=False).offsets
            return found
        lead = len(self._control)
        offsets = tokenizer.encode(self._control + text, add_special_tokens=False).offsets[1:]
        return [(start - lead, end - lead) for start, end in offsets]


def _rename(copy: dict[str, Any], controls: set[str]) -> None:
    for added in copy["added_tokens"]:
        if added["content"] in controls:
            added |= {"content": UNSPELLED + added["content"], "lstrip": False, "rstrip": False, "normalized": False}
            added["single_word"] = False
    model = copy["model"]
    if model.get("unk_token") in controls:
        model["unk_token"] = UNSPELLED + model["unk_token"]
    renamed = {name: UNSPELLED + name for name in controls}
    if isinstance(model["vocab"], dict):
        model["vocab"] = {renamed.get(name, name): number for name, number in model["vocab"].items()}
    else:  # a unigram model: ids are places in the list
        model["vocab"] = [[renamed.get(name, name), score] for name, score in model["vocab"]]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not controls.intersection(_merged(pair))]


def _merged(pair: str | list[str]) -> Iterable[str]:
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return left, right, left + right


def _without_prefix(part: Any) -> Any:
    """The settings of a tokenizer, less what puts a space before a text."""
    if isinstance(part, list):
        return [_without_prefix(item) for item in part if not _is_prepend(item)]
    if not isinstance(part, dict):
        return part
    kept: dict[str, Any] = {}
    for key, value in part.items():
        if key in ("model", "added_tokens", "decoder"):
            kept[key] = value
        elif key == "prepend_scheme":
            kept[key] = "never"
        elif key == "add_prefix_space":
            kept[key] = False
        else:
            kept[key] = None if _is_prepend(value) else _without_prefix(value)
    return kept


def _is_prepend(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "Prepend"
