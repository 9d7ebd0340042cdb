"""Write a token store in one process, sequence by sequence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from longalign_core.errors import DataError
from longalign_core.token_store.index import INDEX, seal
from longalign_core.token_store.shards import Shard, ShardWriter, shard_name, token_type

_SHARD_TOKENS = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRow:
    """Where a sequence of a token store came from.

    Attributes:
        sequence: Its number in the store.
        document_id: The document it is about; None for short instructions.
        length: Its tokens.
        targets: Those of them that the model is trained to predict.
        cut_tokens: Tokens taken out so that it fits.
    """

    sequence: int
    conversation_id: str
    document_id: str | None
    source: str
    length: int
    targets: int
    cut_tokens: int


class TokenStoreWriter:
    """Writes a token store, sequence by sequence, holding about a million tokens in memory.

    What an earlier writer left in the folder is replaced. Leaving the context through an exception
    leaves no token store behind.

    Args:
        folder: Made if it is not there.
        vocabulary: Token ids are below it; up to 65,536 they take two bytes, above four.
        shard_tokens: A shard ends with the sequence that brings it so far.
    """

    def __init__(self, folder: Path, vocabulary: int = 2**32, *, shard_tokens: int = _SHARD_TOKENS) -> None:
        assert 0 < vocabulary <= 2**32
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        self._folder, self._vocabulary, self._shard_tokens = folder, vocabulary, shard_tokens
        self._tokens = token_type(vocabulary)
        self._shards: list[Shard] = []
        self._shard: ShardWriter | None = None
        self._num_sequences = 0

    def append(self, token_ids: NDArray[np.integer], is_target: NDArray[np.bool_]) -> int:
        """Add a sequence.

        Args:
            token_ids: Shape (n,), n at least 1, values from 0 and below the vocabulary.
            is_target: Shape (n,). True where the model is trained to predict the token from those
                before it; never true for the first.

        Returns:
            The sequence's number, from 0.

        Raises:
            DataError: The sequence has no token.
        """
        number = self._num_sequences
        if len(token_ids) == 0:
            raise DataError(f"sequence {number} has no token; leave it out and keep it as a reject")
        assert int(token_ids.max()) < self._vocabulary
        if self._shard is None:
            self._shard = ShardWriter(self._folder / shard_name(len(self._shards)), self._tokens)
        self._shard.append(token_ids, is_target)
        self._num_sequences += 1
        if self._shard.num_tokens >= self._shard_tokens:
            self._end_shard()
        return number

    def close(self) -> None:
        """Make the store whole. Nothing can be added afterwards."""
        self._end_shard()
        seal(self._folder, self._tokens, self._shards)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        if self._shard is not None:
            self._shard.abandon()
        for shard in self._shards:
            (self._folder / shard.name).unlink(missing_ok=True)

    def _end_shard(self) -> None:
        if self._shard is not None:
            self._shards.append(self._shard.close())
            self._shard = None
