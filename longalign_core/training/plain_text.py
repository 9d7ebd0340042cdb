"""Documents to pieces of plain text that a model is trained on whole, as in pre-training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longalign_core.chat_template import looks_like_control
from longalign_core.errors import InputError
from longalign_core.named_templates import own_template_text
from longalign_core.record_files import in_groups
from longalign_core.records import Document

SHORTEST_PIECE = 2  # one token to predict, and one to predict it from
# Encodings take about 200 bytes a character while they are in memory.
_CHARACTERS_AT_ONCE = 1_000_000


class PlainText:
    """A tokenizer that sees no control token in a document, whatever is spelled there.

    Attributes:
        vocabulary: Token ids are below it.
    """

    def __init__(self, folder: Path, *, trust_remote_code: bool) -> None:
        """Load the tokenizer in `folder`.

        Raises:
            InputError: It holds none that can be loaded.
        """
        from transformers import AddedToken, AutoTokenizer  # takes seconds, which planning a run must not

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InputError(
                f"training.base_model {folder.name} holds no tokenizer that transformers can load; "
                "give a folder with tokenizer.json and tokenizer_config.json"
            ) from error
        if self._tokenizer.is_fast:
            # Only tokens that are called special are split where a document spells them.
            own = own_template_text(self._tokenizer)
            for added in self._tokenizer.added_tokens_decoder.values():
                name = added.content
                if not added.special and (looks_like_control(name) or (name.strip() and name in own)):
                    special = AddedToken(name, special=True, normalized=added.normalized)
                    self._tokenizer.add_tokens([special], special_tokens=True)
        self.vocabulary: int = 1 + max(self._tokenizer.get_vocab().values())

    def encode(self, documents: Iterable[Document]) -> Iterator[tuple[Document, list[int]]]:
        """Each document with its token ids, between the tokenizer's first and last token where it has them."""
        first, last = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        # ChatGLM3 begins a text with two tokens, neither of which it calls its first.
        before = self._tokenizer("")["input_ids"] if first is None else [first]
        after = [] if last is None else [last]
        for group in in_groups(documents, lambda document: len(document.text), _CHARACTERS_AT_ONCE):
            texts = [document.text for document in group]
            rows = self._tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)
            for document, token_ids in zip(group, rows["input_ids"], strict=True):
                yield document, [*before, *token_ids, *after]


def cut_pieces(token_ids: Sequence[int], context_tokens: int) -> list[NDArray[np.int64]]:
    """Cut a document into consecutive pieces of `context_tokens`, the last one as long as what is left."""
    ids = np.asarray(token_ids, dtype=np.int64)
    return [ids[start : start + context_tokens] for start in range(0, len(ids), context_tokens)]
