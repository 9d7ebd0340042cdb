"""Near-duplicates and cut-off copies among documents, found from their sketches.

Documents are looked at from the longest to the shortest (the smaller id first where equal), and one is
left out when it resembles, or lies within, a document that is *kept*. So a cut-off copy loses to
the whole, nothing depends on the order of the input, and every document left out was measured against
a kept one. Merging whatever a chain of pairs links would lack the last: its ends may have nothing in
common.

Candidates for likeness share a band of their signatures (Indyk, Motwani 1998; Leskovec et al. 2020,
section 3.4.3), candidates for containment share samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longalign_core.compiled import compiled
from longalign_core.corpora.comparing.minhash import Signatures, similarity
from longalign_core.corpora.comparing.sketch_index import Ranks, Shared

LEAST_SAMPLES = 32
"""Samples from which a containment can be told: those of about a thousand words. Half of a document is
then taken for 0.8 of it less than once in a thousand times."""
MOST_HOLDERS = 256
"""Kept documents that are remembered for a sample, the longest ones. What more of them hold is a licence
or the frame of a page: it cannot tell which document holds another."""
MOST_IN_A_BAND = 1_024
"""Kept documents that are remembered for a band, the longest ones. More have it only where very many share a
frame but are not alike: each would be measured against all, and near-duplicates there share other bands too."""
_AT_ONCE = 16_384
_NEAR, _WITHIN = 1, 2
_OUTCOME = np.dtype([("how", np.int64), ("kept", np.int64), ("value", np.float64)])
Outcome = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A document that is not kept.

    Attributes:
        rank: The document.
        kept: The kept document that it was measured against.
        is_within: Whether it lies within that one, rather than resembles it.
        value: The estimated similarity; or the part of it that the other one holds.
    """

    rank: int
    kept: int
    is_within: bool
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Documents by rank, as they are compared.

    Attributes:
        signatures: Shape (D, 256).
        bands: What they share of them; nothing where no near-duplicates are sought.
        similar: Least similarity of near-duplicates.
        num_samples: Shape (D,).
        samples: What they share of them; nothing where no containment is sought.
        contained: Least part of a document within another.
    """

    signatures: Signatures
    bands: Shared
    similar: float
    num_samples: NDArray[np.int64]
    samples: Shared
    contained: float


def leave_out(documents: Compared, look: Callable[[int], None]) -> Iterator[LeftOut]:
    """Go through documents by rank, and give those that are not kept.

    Args:
        documents: From the longest to the shortest.
        look: Told how many were looked at since it was told the last time.
    """
    count = len(documents.num_samples)
    outcome = np.zeros(count, _OUTCOME)
    room = np.full(count, -1, np.int32), np.zeros(count, np.int32), np.empty(count, np.int32)
    for start in range(0, count, _AT_ONCE):
        end = min(start + _AT_ONCE, count)
        _look_at(
            start,
            end,
            documents.signatures,
            documents.bands,
            documents.similar,
            documents.num_samples,
            documents.samples,
            documents.contained,
            room,
            outcome,
        )
        look(end - start)
        for rank in start + np.flatnonzero(outcome["how"][start:end]):
            how, kept, value = outcome[rank].item()
            yield LeftOut(int(rank), kept, how == _WITHIN, value)


@compiled
def _look_at(
    start: int,
    end: int,
    signatures: Signatures,
    bands: Shared,
    similar: float,
    num_samples: NDArray[np.int64],
    samples: Shared,
    contained: float,
    room: tuple[Ranks, Ranks, Ranks],
    outcome: Outcome,
) -> None:
    seen_by, counts, touched = room
    for rank in range(start, end):
        how = 0
        other, value = _most_similar(rank, signatures, bands, seen_by)
        if other >= 0 and value >= similar:
            how = _NEAR
        elif num_samples[rank] >= LEAST_SAMPLES:
            other, shared = _most_shared(rank, samples, counts, touched)
            value = shared / num_samples[rank]
            if other >= 0 and value >= contained:
                how = _WITHIN
        if how:
            outcome[rank]["how"], outcome[rank]["kept"], outcome[rank]["value"] = how, other, value
        else:
            _remember(rank, bands, MOST_IN_A_BAND)
            _remember(rank, samples, MOST_HOLDERS)


@compiled
def _most_similar(rank: int, signatures: Signatures, bands: Shared, seen_by: Ranks) -> tuple[int, float]:
    best, value = -1, 0.0
    for row in range(bands.starts[rank], bands.starts[rank + 1]):
        node = bands.last[bands.groups[row]]
        while node >= 0:
            other = bands.documents[node]
            if seen_by[other] != rank:
                seen_by[other] = rank
                estimate = similarity(signatures[rank], signatures[other])
                if estimate > value or (estimate == value and other < best):
                    best, value = other, estimate
            node = bands.before[node]
    return best, value


@compiled
def _most_shared(rank: int, samples: Shared, counts: Ranks, touched: Ranks) -> tuple[int, int]:
    num_touched = 0
    for row in range(samples.starts[rank], samples.starts[rank + 1]):
        node = samples.last[samples.groups[row]]
        while node >= 0:
            other = samples.documents[node]
            if counts[other] == 0:
                touched[num_touched] = other
                num_touched += 1
            counts[other] += 1
            node = samples.before[node]
    best, most = -1, 0
    for place in range(num_touched):
        other = touched[place]
        if counts[other] > most or (counts[other] == most and other < best):
            best, most = other, counts[other]
        counts[other] = 0
    return best, most


@compiled
def _remember(rank: int, shared: Shared, most: int) -> None:
    for row in range(shared.starts[rank], shared.starts[rank + 1]):
        group = shared.groups[row]
        if shared.numbers[group] < most:
            shared.before[row] = shared.last[group]
            shared.last[group] = row
            shared.numbers[group] += 1
