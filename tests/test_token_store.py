from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.errors import DataError
from longalign_core.token_store import TokenStore, TokenStoreWriter, with_labels

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


def test_store_array_that_is_used_again_after_it_was_added_changes_nothing(tmp_path):
    ids, is_target = np.array([5, 6, 7]), np.array([False, True, True])
    with TokenStoreWriter(tmp_path) as writer:
        writer.append(ids, is_target)
        ids[:], is_target[:] = 1, False
        writer.append(ids, is_target)
    store = TokenStore.open(tmp_path)
    assert [store.sequence(number)[0].tolist() for number in (0, 1)] == [[5, 6, 7], [1, 1, 1]]
    assert store.targets.tolist() == [2, 0]


def test_store_token_id_zero_inside_keeps_the_whole_sequence(tmp_path):
    store = write(tmp_path, ([5, 0, 0, 7, 0], [False, False, True, True, True]))
    assert store.sequence(0)[0].tolist() == [5, 0, 0, 7, 0]


@pytest.mark.parametrize(("ids", "largest"), [([[5, 0], [9, 2, 2**32 - 1], [7]], 2**32 - 1), ([[0]], 0), ([], 0)])
def test_store_largest_token_id_is_that_of_all_sequences(tmp_path, ids, largest):
    store = write(tmp_path, *((one, [False] * len(one)) for one in ids))
    assert store.largest_token_id == largest


@pytest.mark.parametrize(("vocabulary", "most"), [(1 << 16, 2.02), ((1 << 16) + 1, 4.02)])
def test_store_token_costs_little_more_than_two_or_four_bytes(tmp_path, vocabulary, most):
    count = 100_000
    is_target = np.arange(count) >= count - 500
    with TokenStoreWriter(tmp_path, vocabulary) as writer:
        writer.append(np.arange(count) % vocabulary, is_target)
    store = TokenStore.open(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < most * count
    assert store.num_bytes < most * count
    assert store.sequence(0)[0].tolist() == (np.arange(count) % vocabulary).tolist()


def test_store_of_many_shards_and_batches_gives_each_sequence_back(tmp_path):
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 40, 5_000)
    with TokenStoreWriter(tmp_path, 500, shard_tokens=30_000) as writer:
        for number, length in enumerate(lengths):
            writer.append(np.full(length, number % 500), (np.arange(length) == length - 1) & (length > 1))
    store = TokenStore.open(tmp_path)
    assert len(list(tmp_path.glob("*.arrow"))) == 4
    for number in draw.permutation(5_000).tolist():
        ids, is_target = store.sequence(number)
        assert ids.tolist() == [number % 500] * lengths[number]
        assert np.flatnonzero(is_target).tolist() == ([len(ids) - 1] if len(ids) > 1 else [])


def test_store_is_read_by_datasets_in_both_its_ways(tmp_path):
    draw = np.random.default_rng(1)
    drawn = [
        (draw.integers(0, 900, size).tolist(), [False, *(draw.random(size - 1) < 0.4).tolist()]) for size in (3, 9)
    ]
    store = write(tmp_path / "store", *drawn)
    (shard,) = map(str, (tmp_path / "store").glob("*.arrow"))
    mapped = Dataset.from_file(shard)
    loaded = load_dataset("arrow", data_files=shard, split="train", cache_dir=str(tmp_path / "cache"))
    for rows in (mapped, loaded):
        assert rows["input_ids"][:] == [ids for ids, _ in drawn]
        labelled = rows.with_transform(with_labels)[:]
        assert labelled["input_ids"] == [ids for ids, _ in drawn]
        assert labelled["labels"] == [
            [token if target else -100 for token, target in zip(*one, strict=True)] for one in drawn
        ]
    assert store.num_sequences == mapped.num_rows


def test_store_same_sequences_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, ([1, 2, 3], [False, True, True]), ([4], [False]))
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_writer_interrupted_leaves_no_store(tmp_path):
    write(tmp_path, ([1, 2], [False, True]))
    with pytest.raises(KeyboardInterrupt), TokenStoreWriter(tmp_path, shard_tokens=2) as writer:
        writer.append(np.array([9, 9]), np.array([False, True]))
        writer.append(np.array([9]), np.array([False]))
        raise KeyboardInterrupt
    with pytest.raises(DataError, match="run `encode` again"):
        TokenStore.open(tmp_path)


def test_writer_started_over_replaces_what_was_left(tmp_path):
    with TokenStoreWriter(tmp_path, shard_tokens=1) as earlier:
        for _ in range(3):
            earlier.append(np.array([9, 9, 9]), np.array([False, True, True]))
    unfinished = TokenStoreWriter(tmp_path)
    unfinished.append(np.array([9, 9, 9]), np.array([False, True, True]))
    store = write(tmp_path, ([1, 2], [False, True]))
    assert store.num_sequences == 1
    names = ["lengths.npy", "targets.npy", "token_store.json", "tokens-00000.arrow"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names


def test_writer_sequence_without_tokens_is_refused(tmp_path):
    with pytest.raises(DataError, match="sequence 0 has no token"), TokenStoreWriter(tmp_path) as writer:
        writer.append(np.array([], dtype=np.int64), np.array([], dtype=bool))


FILES = ["tokens-00000.arrow", "lengths.npy", "targets.npy"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 64, 200])
def test_open_file_cut_short_is_refused(tmp_path, name, keep):
    write(tmp_path, *[(list(range(100)), [False] * 100)] * 30)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"{name} of the token store in .* has {keep} bytes instead of"):
        TokenStore.open(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_open_file_gone_is_refused(tmp_path, name):
    write(tmp_path, ([1, 2], [False, True]))
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{name} of the token store in .* is missing; fetch it again"):
        TokenStore.open(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_verify_one_bit_changed_is_refused_by_name(tmp_path, name):
    store = write(tmp_path, *[(list(range(100)), [False] * 100)] * 30)
    store.verify()
    file = tmp_path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} of the token store in .* is damaged"):
        TokenStore.open(tmp_path).verify()


def test_sequence_of_a_shard_overwritten_is_refused_by_name(tmp_path):
    write(tmp_path, ([1, 2], [False, True]))
    file = tmp_path / "tokens-00000.arrow"
    file.write_bytes(b"\0" * file.stat().st_size)
    with pytest.raises(DataError, match=r"tokens-00000\.arrow of the token store is damaged at byte"):
        TokenStore.open(tmp_path).sequence(0)


@pytest.mark.parametrize("schema", [1, 3])
def test_open_other_schema_is_refused(tmp_path, schema):
    write(tmp_path, ([1, 2], [False, True]))
    index = tmp_path / "token_store.json"
    index.write_text(index.read_text().replace('"schema":2', f'"schema":{schema}'))
    with pytest.raises(DataError, match=f"has schema {schema}, this version reads 2; run `encode` again"):
        TokenStore.open(tmp_path)


def test_open_store_of_the_first_schema_as_it_was_written_is_refused(tmp_path):
    (tmp_path / "token_store.json").write_text('{"schema":1,"sizes":{"token_ids":2}}')
    with pytest.raises(DataError, match="has schema 1, this version reads 2; run `encode` again"):
        TokenStore.open(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema":2}', '{"schema":2,"tokens":"int8"}'])
def test_open_damaged_index_is_refused(tmp_path, content):
    write(tmp_path, ([1, 2], [False, True]))
    (tmp_path / "token_store.json").write_text(content)
    with pytest.raises(DataError, match=r"token_store\.json in .* is damaged; fetch it again"):
        TokenStore.open(tmp_path)
