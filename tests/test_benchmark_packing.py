import dataclasses
import json
import os

import numpy as np
import pytest
from rich.console import Console

from benchmarks import packing
from benchmarks.packing_peer_process import PACKERS
from benchmarks.packing_peers import PEERS, PeerError, PeerPacks, fetch, pack
from benchmarks.packing_probe import lengths_of

TINY = dataclasses.replace(
    packing.QUICK,
    compared=2_000,
    plans={"100k": 2_000, "10m": 3_000},
    peer_plans={"100k": 2_000},
    documents=1,
    vocabulary=300,
    turns=1,
    stored=10,
)


@pytest.fixture
def cores():
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "peers"


def made(*packs: tuple[int, ...]) -> PeerPacks:
    lengths = np.array([length for one in packs for length in one], dtype=np.int32)
    counts = np.array([len(one) for one in packs])
    return PeerPacks(lengths=lengths, counts=counts, pack_cpu_seconds=1.0, plan_cpu_seconds=1.0, peak_mb=1.0)


@pytest.mark.slow
def test_packing_benchmark_without_network_gives_every_figure_and_says_why_peers_lack(
    test_data, cores, no_network, monkeypatch
):
    monkeypatch.setenv("LONGALIGN_TEST_DATA", str(test_data))
    console = Console(record=True, quiet=True, width=110)
    figures = json.loads(json.dumps(packing.run(TINY, console, no_network)))
    assert figures["utilisation"] > 0.9 and set(figures["idle"]) == {"8x8", "8x32"}
    assert 0 < figures["ess_step_8"] <= 1 and 0 < figures["ess_step_32"] <= 1
    assert set(figures["first_fit_cpu_seconds"]) == set(figures["plan_cpu_seconds"]) == {"100k", "10m"}
    assert figures["peers"] == {}
    assert set(figures["peers_skipped"]) == {peer.name for peer in PEERS}
    assert "pip cannot install" in figures["peers_skipped"]["ms-swift"]
    assert figures["encode_vs_tokenizers"] > 0 and figures["encode_vs_datasets_map"] > 0
    assert 2 < figures["bytes_per_token"] < 3  # a small vocabulary fits two bytes
    assert figures["store_open"]["sequences"] == 10
    assert figures["device"] and figures["date"]


def test_fetch_without_network_names_the_package_and_leaves_nothing(no_network):
    with pytest.raises(PeerError, match=r"pip cannot install trl==1\.16\.0: .*No matching distribution"):
        fetch(["trl==1.16.0"], no_network)
    assert list(no_network.iterdir()) == []


def test_every_peer_has_a_packer_and_pinned_packages():
    assert {peer.name for peer in PEERS} == set(PACKERS)
    assert all("==" in package for peer in PEERS for package in peer.packages)


def test_pack_with_a_peer_that_is_not_there_says_so(tmp_path):
    with pytest.raises(PeerError, match="No module named 'llamafactory"):
        pack(PEERS[3], tmp_path, np.array([1, 2, 3], dtype=np.int32), 4)


def test_pack_with_a_peer_that_loses_a_sequence_is_refused(tmp_path):
    module = tmp_path / "llamafactory" / "data" / "processor" / "processor_utils.py"
    module.parent.mkdir(parents=True)
    module.write_text("def greedy_knapsack(numbers, capacity):\n    return [[number] for number in numbers[1:]]\n")
    with pytest.raises(PeerError, match="3 sequences went in, 2 came out"):
        pack(PEERS[3], tmp_path, np.array([1, 2, 3], dtype=np.int32), 4)
    module.write_text("def greedy_knapsack(numbers, capacity):\n    return [numbers]\n")
    with pytest.raises(PeerError, match="over capacity"):
        pack(PEERS[3], tmp_path, np.array([1, 2, 3], dtype=np.int32), 4)


def test_packs_in_slots_keep_their_sequences_together():
    given = [(5, 1), (4,), (3, 3, 2), (6,), (2, 2), (1, 1, 1)]
    packs = made(*given)

    def slots(*, shuffled: bool) -> list[tuple[int, ...]]:
        order = packs.in_slots(shuffled=shuffled, seed=0)
        assert sorted(order.sequences) == list(range(12)) and (np.diff(order.slots) >= 0).all()
        return [tuple(packs.lengths[order.sequences[order.slots == slot]].tolist()) for slot in range(len(given))]

    assert slots(shuffled=False) == given
    assert slots(shuffled=True) != given and sorted(slots(shuffled=True)) == sorted(given)


def test_quality_of_full_even_packs_is_perfect_and_of_one_short_pack_by_hand():
    full = packing.peer_quality(made(*[(packing.CAPACITY,)] * 32), shuffled=True)
    assert (full["packs"], full["utilisation"], full["idle"]) == (32, 1.0, {"8x8": 0.0, "8x32": 0.0})
    assert full["ess_step_8"] == full["ess_step_32"] == 1.0
    half = packing.peer_quality(made(*[(packing.CAPACITY,)] * 31, (packing.CAPACITY // 2,)), shuffled=False)
    assert half["utilisation"] == round(31.5 / 32, 5)
    assert half["idle"]["8x8"] == half["idle"]["8x32"] > 0


def test_lengths_of_more_than_the_sample_are_it_again_in_another_order(test_data, monkeypatch):
    monkeypatch.setenv("LONGALIGN_TEST_DATA", str(test_data))
    once, twice = lengths_of(100_000), lengths_of(200_000)
    assert np.array_equal(np.sort(twice), np.sort(np.concatenate([once, once])))
    assert not np.array_equal(twice[:100_000], once)
    assert np.array_equal(twice, lengths_of(200_000))
