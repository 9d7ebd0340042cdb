"""Encoded conversations on disk: ragged token ids, memory-mapped, with the spans a model is trained on.

A folder of plain `.npy` files beside `token_store.json`, which is written last and names their sizes:
a folder without it is not a token store. Four bytes a token, and eight for each assistant turn.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import orjson
from numpy.typing import NDArray

from longalign_core.errors import DataError

_INDEX = "token_store.json"
_SCHEMA = 1
_ARRAYS = {"token_ids": "<u4", "token_ends": "<i8", "target_spans": "<u4", "target_span_ends": "<i8"}
_CHUNK = 1 << 24  # tokens: 64 MiB


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
    """Writes a token store, sequence by sequence, holding one sequence in memory.

    What an earlier writer left in the folder is replaced. Leaving the context through an exception
    leaves no token store behind.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        (folder / _INDEX).unlink(missing_ok=True)
        self._arrays = {name: _GrowingArray(folder / f"{name}.npy", dtype) for name, dtype in _ARRAYS.items()}
        self._num_sequences = 0

    def append(self, token_ids: NDArray[np.integer], is_target: NDArray[np.bool_]) -> int:
        """Add a sequence.

        Args:
            token_ids: Shape (n,), n at least 1, values in [0, 2**32).
            is_target: Shape (n,). True where the model is trained to predict the token from those
                before it; never true for the first.

        Returns:
            The sequence's number, from 0.

        Raises:
            DataError: The sequence has no token.
        """
        if len(token_ids) == 0:
            raise DataError(f"sequence {self._num_sequences} has no token; leave it out and keep it as a reject")
        assert token_ids.shape == is_target.shape and token_ids.ndim == 1
        assert token_ids.min() >= 0 and int(token_ids.max()) < 2**32
        assert not is_target[0], "nothing stands before a first token to predict it from"
        # The mask changes value at the starts and ends of its spans, in turn.
        edges = np.flatnonzero(np.diff(is_target, prepend=False, append=False))
        self._arrays["token_ids"].extend(token_ids)
        self._arrays["token_ends"].extend(np.array([self._arrays["token_ids"].size]))
        self._arrays["target_spans"].extend(edges)
        self._arrays["target_span_ends"].extend(np.array([self._arrays["target_spans"].size]))
        self._num_sequences += 1
        return self._num_sequences - 1

    def close(self) -> None:
        """Make the store whole. Nothing can be added afterwards."""
        for array in self._arrays.values():
            array.close()
        index = {"schema": _SCHEMA, "sizes": {name: array.size for name, array in self._arrays.items()}}
        unfinished = self._folder / f"{_INDEX}.part"
        unfinished.write_bytes(orjson.dumps(index, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE))
        unfinished.replace(self._folder / _INDEX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            for array in self._arrays.values():
                array.abandon()


class TokenStore:
    """A token store opened for reading. Token ids stay on disk until a sequence is asked for.

    Attributes:
        lengths: Tokens per sequence, shape (S,).
        targets: Tokens per sequence that the model is trained to predict, shape (S,).
    """

    def __init__(self, arrays: dict[str, NDArray[np.integer]]) -> None:
        self._token_ids = arrays["token_ids"]
        self._spans = arrays["target_spans"]
        self._token_ends = np.concatenate([[0], arrays["token_ends"]]).astype(np.int64)
        self._span_ends = np.concatenate([[0], arrays["target_span_ends"]]).astype(np.int64)
        self.lengths: NDArray[np.int64] = np.diff(self._token_ends)
        edges = np.asarray(self._spans, dtype=np.int64).reshape(-1, 2)
        targets_before = np.concatenate([[0], np.cumsum(edges[:, 1] - edges[:, 0])])
        self.targets: NDArray[np.int64] = np.diff(targets_before[self._span_ends // 2])

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Open the store in `folder`.

        Raises:
            DataError: The folder holds no whole token store, or one of another schema.
        """
        index_file = folder / _INDEX
        if not index_file.is_file():
            raise DataError(f"{folder.name} has no {_INDEX}, so it is no whole token store; run `encode` again")
        index = orjson.loads(index_file.read_bytes())
        if index["schema"] != _SCHEMA:
            raise DataError(
                f"the token store in {folder.name} has schema {index['schema']}, this version reads {_SCHEMA}; "
                "run `encode` again or use the version that wrote it"
            )
        arrays = {}
        for name in _ARRAYS:
            file = folder / f"{name}.npy"
            array = _open_array(file) if file.is_file() else None
            if array is None or array.size != index["sizes"][name]:
                raise DataError(f"{name}.npy of the token store in {folder.name} is missing or cut; fetch it again")
            arrays[name] = array
        return cls(arrays)

    @property
    def num_sequences(self) -> int:
        """Number of sequences; they are counted from 0."""
        return len(self.lengths)

    @property
    def largest_token_id(self) -> int:
        """Largest token id of all sequences; 0 in an empty store. Reads every token, a chunk at a time."""
        starts = range(0, len(self._token_ids), _CHUNK)
        return max((int(self._token_ids[start : start + _CHUNK].max()) for start in starts), default=0)

    def sequence(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Token ids and target mask of one sequence, both of shape (lengths[index],)."""
        assert 0 <= index < self.num_sequences, f"sequence {index} of {self.num_sequences}"
        token_ids = self._token_ids[self._token_ends[index] : self._token_ends[index + 1]].astype(np.int64)
        is_target = np.zeros(len(token_ids), dtype=np.bool_)
        for start, end in self._spans[self._span_ends[index] : self._span_ends[index + 1]].reshape(-1, 2):
            is_target[start:end] = True
        return token_ids, is_target


class _GrowingArray:
    """A one-dimensional `.npy` file that is appended to; its header is written again at the end."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.size = 0
        self._path = path
        self._dtype = np.dtype(dtype)
        path.unlink(missing_ok=True)
        self._unfinished = path.with_suffix(".npy.part")
        self._file = self._unfinished.open("wb")
        self._write_header()

    def extend(self, values: NDArray[np.integer]) -> None:
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).tobytes())
        self.size += len(values)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()
        self._unfinished.replace(self._path)

    def abandon(self) -> None:
        self._file.close()
        self._unfinished.unlink(missing_ok=True)

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the first axis to grow, so its size stays the same.
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.size,)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _open_array(path: Path) -> NDArray[np.integer] | None:
    """Memory-map an array, or read it where that cannot be done (an empty one); None where it is cut."""
    for mode in ("r", None):
        with suppress(ValueError, EOFError, OSError):
            return np.load(path, mmap_mode=mode, allow_pickle=False)  # type: ignore[no-any-return]
    return None
