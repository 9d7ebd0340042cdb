from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.errors import DataError
from longalign_core.token_store import TokenStore, TokenStoreWriter

tokens = st.integers(0, 2**32 - 1)
# A first token is never a target.
sequences = st.lists(
    st.tuples(tokens, st.lists(st.tuples(tokens, st.booleans()), max_size=20)).map(
        lambda drawn: ([drawn[0]] + [token for token, _ in drawn[1]], [False] + [target for _, target in drawn[1]])
    ),
    max_size=6,
)


def write(folder: Path, *sequences: tuple[list[int], list[bool]]) -> TokenStore:
    with TokenStoreWriter(folder) as writer:
        for number, (ids, is_target) in enumerate(sequences):
            assert writer.append(np.array(ids), np.array(is_target, dtype=bool)) == number
    return TokenStore.open(folder)


@settings(max_examples=40, deadline=None)
@given(drawn=sequences)
def test_store_any_sequences_come_back_as_written(drawn, tmp_path_factory):
    store = write(tmp_path_factory.mktemp("store"), *drawn)
    assert store.num_sequences == len(drawn)
    for number, (ids, is_target) in enumerate(drawn):
        read_ids, read_targets = store.sequence(number)
        assert read_ids.tolist() == ids
        assert read_targets.tolist() == is_target
        assert store.lengths[number] == len(ids)
        assert store.targets[number] == sum(is_target)


def test_store_token_id_zero_inside_keeps_the_whole_sequence(tmp_path):
    store = write(tmp_path, ([5, 0, 0, 7, 0], [False, False, True, True, True]))
    assert store.sequence(0)[0].tolist() == [5, 0, 0, 7, 0]


@pytest.mark.parametrize(("ids", "largest"), [([[5, 0], [9, 2, 2**32 - 1], [7]], 2**32 - 1), ([[0]], 0), ([], 0)])
def test_store_largest_token_id_is_that_of_all_sequences(tmp_path, ids, largest):
    store = write(tmp_path, *((one, [False] * len(one)) for one in ids))
    assert store.largest_token_id == largest


def test_store_token_costs_little_more_than_four_bytes(tmp_path):
    count = 100_000
    is_target = np.arange(count) >= count - 500
    with TokenStoreWriter(tmp_path) as writer:
        writer.append(np.arange(count), is_target)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 4.02 * count


def test_store_same_sequences_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, ([1, 2, 3], [False, True, True]), ([4], [False]))
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_writer_interrupted_leaves_no_store(tmp_path):
    write(tmp_path, ([1, 2], [False, True]))
    with pytest.raises(KeyboardInterrupt), TokenStoreWriter(tmp_path) as writer:
        writer.append(np.array([9, 9]), np.array([False, True]))
        raise KeyboardInterrupt
    with pytest.raises(DataError, match="run `encode` again"):
        TokenStore.open(tmp_path)


def test_writer_started_over_replaces_what_was_left(tmp_path):
    unfinished = TokenStoreWriter(tmp_path)
    unfinished.append(np.array([9, 9, 9]), np.array([False, True, True]))
    store = write(tmp_path, ([1, 2], [False, True]))
    assert store.num_sequences == 1
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".npy", ".npy", ".npy", ".npy"]


def test_writer_sequence_without_tokens_is_refused(tmp_path):
    with pytest.raises(DataError, match="sequence 0 has no token"), TokenStoreWriter(tmp_path) as writer:
        writer.append(np.array([], dtype=np.int64), np.array([], dtype=bool))


@pytest.mark.parametrize("keep", [0, 64, 200])
def test_open_file_cut_short_is_refused(tmp_path, keep):
    write(tmp_path, (list(range(100)), [False] * 100))
    file = tmp_path / "token_ids.npy"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"token_ids\.npy"):
        TokenStore.open(tmp_path)


def test_open_newer_schema_is_refused(tmp_path):
    write(tmp_path, ([1, 2], [False, True]))
    index = tmp_path / "token_store.json"
    index.write_text(index.read_text().replace('"schema":1', '"schema":2'))
    with pytest.raises(DataError, match="schema 2"):
        TokenStore.open(tmp_path)
