"""A slot of the plan as model inputs."""

from __future__ import annotations

import numpy as np
import pytest

from longalign_core.batch_plan import Placement
from longalign_core.errors import DataError
from longalign_core.token_store import TokenStore, TokenStoreWriter
from longalign_core.training.packs import make_pack, rank_packs, share_of
from tests.tiny_training import write_plan, write_tokens


@pytest.fixture
def store(tmp_path):
    with TokenStoreWriter(tmp_path / "tokens") as writer:
        writer.append(np.array([10, 11, 12, 13]), np.array([False, False, True, True]))
        writer.append(np.array([0, 21, 22]), np.array([False, True, False]))
    return TokenStore.open(tmp_path / "tokens")


def test_make_pack_two_sequences_shift_labels_inside_each_and_restart_positions(store):
    slot = (Placement(1, 0, 3, 1), Placement(0, 3, 4, 2))
    pack = make_pack(slot, [0.5, 0.25], store, 30)
    # sequence 1: token 21 is the target; sequence 0: 12 and 13. The last label of each is void.
    assert pack.token_ids.tolist() == [0, 21, 22, 10, 11, 12, 13]
    assert pack.positions.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert pack.labels.tolist() == [21, 22, 0, 11, 12, 13, 0]
    assert pack.weights.tolist() == [0.5, 0, 0, 0, 0.25, 0.25, 0]


def test_share_of_pack_shifts_labels_before_it_cuts_and_pads_with_a_sequence_of_its_own(store):
    pack = make_pack((Placement(1, 0, 3, 1), Placement(0, 3, 4, 2)), [0.5, 0.25], store, 30)
    first, second, third = (share_of(pack, part, 3) for part in range(3))  # seven tokens, made nine
    assert [one.token_ids.tolist() for one in (first, second, third)] == [[0, 21, 22], [10, 11, 12], [13, 0, 0]]
    assert [one.positions.tolist() for one in (first, second, third)] == [[0, 1, 2], [0, 1, 2], [3, 0, 1]]
    assert second.labels.tolist() == [11, 12, 13], "the last label is a token of the third part"
    # The mean over three ranks takes a third of each.
    assert [one.weights.tolist() for one in (first, second, third)] == [[1.5, 0, 0], [0, 0.75, 0.75], [0, 0, 0]]
    assert all(one.token_ids.dtype == one.positions.dtype == np.int64 for one in (first, third))


def test_share_of_empty_slot_gives_every_rank_a_token(store):
    shares = [share_of(make_pack((), [], store, 30), part, 4) for part in range(4)]
    assert [(len(one.token_ids), one.weights.tolist()) for one in shares] == [(1, [0])] * 4


def test_make_pack_empty_slot_is_one_token_without_weight(store):
    pack = make_pack((), [], store, 30)
    assert len(pack.token_ids) == 1
    assert pack.weights.tolist() == [0]


def test_make_pack_token_the_model_does_not_know_is_refused(store):
    with pytest.raises(DataError, match="token id 22 but the base model knows 22 tokens"):
        make_pack((Placement(1, 0, 3, 1),), [1.0], store, 22)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_rank_packs_any_number_of_ranks_together_give_the_whole_step(tmp_path, num_ranks):
    store = write_tokens(tmp_path / "tokens", (5, 6, 7, 8, 9))
    plan = write_plan(tmp_path / "plan", store, [(0, 1), (2,), (), (3, 4)], packs_per_step=4)
    by_rank = [
        rank_packs(plan, store, step=0, rank=rank, num_ranks=num_ranks, vocabulary=99) for rank in range(num_ranks)
    ]
    # micro-step m of rank r is slot m * num_ranks + r
    in_order = [by_rank[slot % num_ranks][slot // num_ranks] for slot in range(4)]
    assert [len(pack.token_ids) for pack in in_order] == [11, 7, 1, 17]
    # M = 5 sequences: all weights of the step, without packs_per_step, are 1/M a sequence
    assert sum(float(pack.weights.sum()) for pack in in_order) / 4 == pytest.approx(1.0, rel=1e-6)
