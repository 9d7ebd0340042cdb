"""Mean losses of sequences by their length."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from longalign_core.batch_plan import Placement
from longalign_core.training.length_losses import BUCKET_EDGES, BUCKETS, bucket_counts, bucket_of, bucket_sums

# Two short sequences, one of 1,500 tokens, one without targets.
SLOT = (Placement(0, 0, 4, 2), Placement(1, 4, 1500, 3), Placement(2, 1504, 6, 3), Placement(3, 1510, 5, 0))


def losses():
    values = np.zeros(1515, dtype=np.float32)
    values[[1, 2]] = 1.0, 3.0
    values[[4, 700, 1500]] = 2.0, 2.0, 5.0
    values[[1504, 1505, 1506]] = 6.0
    return values


def test_bucket_sums_add_the_sequences_means():
    sums = bucket_sums(losses(), SLOT)
    assert sums.tolist() == [2.0 + 6.0, 3.0, 0, 0, 0, 0, 0]
    assert bucket_counts(SLOT) == [2, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("cuts", [(0, 600, 1515), (0, 3, 1505, 1515), (0, 1515, 1515)])
def test_bucket_sums_of_a_packs_parts_add_up_to_the_whole(cuts):
    values = losses()
    parts = [bucket_sums(values[a:b], SLOT, start=a) for a, b in pairwise(cuts)]
    np.testing.assert_allclose(sum(parts), bucket_sums(values, SLOT), rtol=1e-6)


def test_bucket_of_edge_begins_the_next():
    assert [bucket_of(edge - 1) for edge in BUCKET_EDGES] == list(range(6))
    assert [bucket_of(edge) for edge in BUCKET_EDGES] == list(range(1, 7)) and len(BUCKETS) == 7
