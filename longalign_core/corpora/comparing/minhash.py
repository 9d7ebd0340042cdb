"""Sketches of texts: a few bytes from which the likeness of two texts is estimated without the texts.

A text is the set of its runs of five words (see `word_hashes`). Its *signature* estimates the Jaccard
similarity of two sets: MinHash with one permutation and 256 bins (Li, Owen, Zhang 2012), empty bins
filled by optimal densification (Shrivastava 2017), 16 bits a bin (Li, König 2010). It costs one
step a run where MinHash with 256 permutations costs 256; the standard error at similarity s is
sqrt(s (1 - s) / 256), 0.025 at 0.8, and more for texts of fewer than 256 runs. Its *samples*, every
run whose hash is below 1/32 of the range (FracMinHash, Irber et al. 2022), estimate which part of a
text another one holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longalign_core.compiled import compiled
from longalign_core.word_hashes import Hashes, mixed, run_blocks

RUN_WORDS = 5
NUM_BINS = 256
SAMPLING = 32
"""One run in so many is a sample: 8 bytes for 32 words, a thirtieth of the text."""

Signature = NDArray[np.uint16]
Signatures = NDArray[np.uint16]
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_SAMPLED = np.uint64((1 << 64) // SAMPLING)


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is held of a text.

    Attributes:
        length: In half-words; see `word_hashes`.
        signature: Shape (256,), 512 bytes. Means nothing for a text without a word.
        samples: Distinct hashes, rising; one for about 32 distinct runs.
    """

    length: int
    signature: Signature
    samples: Hashes


def sketch(text: str) -> Sketch:
    """Sketch a text, block by block: memory holds the text, its samples and about 3 MiB.

    A text shorter than a run is one run.
    """
    smallest = np.full(NUM_BINS, _EMPTY, np.uint64)
    samples: list[Hashes] = []
    length = _fill(text, 2 * RUN_WORDS, smallest, samples)
    if 0 < length < 2 * RUN_WORDS:
        _fill(text, length, smallest, samples)
    return Sketch(length, _signature(smallest), np.unique(np.concatenate([np.empty(0, np.uint64), *samples])))


@compiled
def similarity(one: Signature, other: Signature) -> float:
    """Estimated Jaccard similarity of two texts: the share of bins with the same content."""
    same = 0
    for place in range(len(one)):
        same += one[place] == other[place]
    return same / len(one)


def _fill(text: str, span: int, smallest: Hashes, samples: list[Hashes]) -> int:
    """Put the runs of a text into bins and samples; returns its length in half-words."""
    total = 0
    for length, (runs,) in run_blocks(text, (span,)):
        total += length
        samples.append(_take(runs, smallest))
    return total


@compiled
def _take(runs: NDArray[np.uint64], smallest: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Lower the bins' minima; returns the samples."""
    samples = np.empty(len(runs), np.uint64)
    count = 0
    for run in runs:
        place = run % np.uint64(NUM_BINS)
        smallest[place] = min(smallest[place], run)
        if run < _SAMPLED:
            samples[count] = run
            count += 1
    return samples[:count].copy()


@compiled
def _signature(smallest: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """16 bits of each bin's minimum; an empty bin has those of a full one, found in the same order for all texts."""
    signature = np.zeros(len(smallest), np.uint16)
    num_bins = np.uint64(len(smallest))
    if (smallest == _EMPTY).all():
        return signature
    for place in range(len(smallest)):
        source = np.uint64(place)
        step = np.uint64(0)
        while smallest[source] == _EMPTY:
            source = mixed((np.uint64(place + 1) << np.uint64(32)) + step) % num_bins
            step += np.uint64(1)
        # Mixed once more: the minimum's own bits are small numbers in its upper half, its bin below.
        signature[place] = np.uint16(mixed(smallest[source]) & np.uint64(0xFFFF))
    return signature
