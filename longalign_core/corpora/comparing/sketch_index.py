"""What the sketches of documents have in common: bands of signatures, and samples.

Documents are numbers here, their ranks. Memory holds 28 bytes for each band or sample that a document
shares with another one; what only one document has, nearly everything, is dropped as it is met.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from longalign_core.compiled import compiled
from longalign_core.corpora.comparing.minhash import NUM_BINS, Signatures
from longalign_core.word_hashes import Hashes, mixed

Ranks = NDArray[np.int32]
_MISSED_AT_THRESHOLD = 0.001


class Shared(NamedTuple):
    """Which documents share something with which, to be gone through by document.

    A group is the documents that have the same band or sample. Rows `starts[d]:starts[d + 1]` are the
    groups of document d. The last three fields begin empty; they link the documents of a group that a
    caller has chosen to remember.

    Attributes:
        starts: Shape (D + 1,).
        groups: Group of each row. Shape (E,).
        documents: Document of each row. Shape (E,).
        last: The last remembered row of each group, -1 for none. Shape (G,).
        before: The row remembered before each row, -1 for none. Shape (E,).
        numbers: How many are remembered of each group. Shape (G,).
    """

    starts: NDArray[np.int64]
    groups: NDArray[np.int64]
    documents: Ranks
    last: NDArray[np.int64]
    before: NDArray[np.int64]
    numbers: NDArray[np.int32]


def band_rows(threshold: float) -> int:
    """Bins that a band has: the most with which a pair at the threshold has none in common once in a thousand times."""
    for rows in range(NUM_BINS, 1, -1):
        if (1 - threshold**rows) ** (NUM_BINS // rows) <= _MISSED_AT_THRESHOLD:
            return rows
    return 1


def shared_bands(signatures: Signatures, has_words: NDArray[np.bool_], threshold: float) -> Shared:
    """The bands that two documents or more have in common, found band by band.

    Args:
        signatures: By rank. Shape (D, 256).
        has_words: Documents without a word resemble none. Shape (D,).
        threshold: The similarity to be found.
    """
    rows = band_rows(threshold)
    ranks = np.flatnonzero(has_words).astype(np.int32)
    bands = range(0, NUM_BINS - rows + 1, rows)
    return _shared(((_band_hashes(signatures, ranks, first, rows), ranks) for first in bands), len(signatures))


def shared_samples(slices: Iterable[tuple[Hashes, Ranks]], num_documents: int) -> Shared:
    """The samples that two documents or more have in common.

    Args:
        slices: Samples with the ranks of their documents. Equal samples are in one slice.
        num_documents: How many there are.
    """
    return _shared(slices, num_documents)


def nothing_shared(num_documents: int) -> Shared:
    """Of documents that are not compared."""
    return _shared((), num_documents)


def _shared(slices: Iterable[tuple[Hashes, Ranks]], num_documents: int) -> Shared:
    found_groups: list[NDArray[np.int64]] = []
    found_ranks: list[Ranks] = []
    num_groups = 0
    for hashes, ranks in slices:
        order = np.lexsort((ranks, hashes))
        hashes, ranks = hashes[order], ranks[order]
        is_first = np.ones(len(hashes), np.bool_)
        is_first[1:] = hashes[1:] != hashes[:-1]
        group = np.cumsum(is_first) - 1
        is_shared = np.bincount(group, minlength=1)[group] > 1
        numbered = np.cumsum(is_first & is_shared) - 1 + num_groups
        found_groups.append(numbered[is_shared])
        found_ranks.append(ranks[is_shared])
        num_groups += int((is_first & is_shared).sum())
    groups = np.concatenate([np.empty(0, np.int64), *found_groups])
    documents = np.concatenate([np.empty(0, np.int32), *found_ranks])
    order = np.argsort(documents, kind="stable")
    groups, documents = groups[order], documents[order]
    return Shared(
        starts=np.searchsorted(documents, np.arange(num_documents + 1)),
        groups=groups,
        documents=documents,
        last=np.full(num_groups, -1, np.int64),
        before=np.full(len(groups), -1, np.int64),
        numbers=np.zeros(num_groups, np.int32),
    )


@compiled
def _band_hashes(signatures: Signatures, ranks: Ranks, first: int, rows: int) -> Hashes:
    hashes = np.empty(len(ranks), np.uint64)
    for place in range(len(ranks)):
        value = np.uint64(0)
        for column in range(first, first + rows):
            value = mixed(value ^ np.uint64(signatures[ranks[place], column])) + np.uint64(1)
        hashes[place] = value
    return hashes
