"""Exact duplicates across corpora, by a hash of the text that ignores case and white space."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DIGEST_BYTES = 16
_BLOCK_CHARACTERS = 1 << 16


def text_digest(text: str) -> bytes:
    """Digest that texts share which are equal but for case and white space, 16 bytes.

    Of the casefolded words with a blank between them; taken block by block, as the words of a book
    are ten times its size.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    has_begun, is_apart = False, False
    for start in range(0, len(text), _BLOCK_CHARACTERS):
        block = text[start : start + _BLOCK_CHARACTERS].casefold()
        words = " ".join(block.split())
        if words:
            if has_begun and (is_apart or block[0].isspace()):
                digest.update(b" ")
            digest.update(words.encode("utf-8", "surrogatepass"))
            has_begun = True
        is_apart = block[-1].isspace()
    return digest.digest()


def first_equals(digests: pa.Array) -> NDArray[np.int64]:
    """The place of the first document with the same digest, for each document; its own where it is the first.

    Args:
        digests: One a document.
    """
    codes = digests.dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return np.asarray(first[codes], np.int64)
