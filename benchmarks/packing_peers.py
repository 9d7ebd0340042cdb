"""Peers' packers: fetched with pip apart from the project's pins, run each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import EpochOrder

_FETCH_SECONDS = 60
_PACK_SECONDS = 900


class PeerError(RuntimeError):
    """A peer cannot be measured, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A packer of another project.

    Attributes:
        name: As `packing_peer_process` calls it.
        packages: What pip installs, pinned.
        shuffles: Whether its sampler shuffles the packs; else they keep the order of their making.
        most_sequences: That it is given.
        why_no_more: What more of them would come to.
        in_quick: Whether a quick run measures it.
    """

    name: str
    packages: tuple[str, ...]
    shuffles: bool = True
    most_sequences: int = 10_000_000
    why_no_more: str = "over two minutes"
    in_quick: bool = True


_TRL, _SWIFT = ("trl==1.16.0",), ("ms-swift==4.6.0", "binpacking==2.0.1")
PEERS = (
    Peer(name="trl", packages=_TRL, most_sequences=1_000_000),
    Peer(
        name="trl, all rows at once",
        packages=_TRL,
        most_sequences=100_000,
        why_no_more="6 to 9 GB for every 100,000 sequences",
        in_quick=False,
    ),
    Peer(name="axolotl", packages=("axolotl==0.19.0",), shuffles=False),
    Peer(name="llama-factory", packages=("llamafactory==0.9.5",)),
    Peer(name="ms-swift", packages=_SWIFT, most_sequences=1_000_000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPacks:
    """What a peer made of given lengths.

    Attributes:
        lengths: Tokens of the sequences, pack by pack in the order in which they were made, shape (S,).
        counts: Sequences in each pack, shape (K,).
        pack_cpu_seconds: Of packing.
        plan_cpu_seconds: Of all that its trainer does to get the packs, without imports and compilation.
        peak_mb: Largest resident memory of the process, imports included.
    """

    lengths: NDArray[np.int32]
    counts: NDArray[np.int64]
    pack_cpu_seconds: float
    plan_cpu_seconds: float
    peak_mb: float

    def in_slots(self, *, shuffled: bool, seed: int) -> EpochOrder:
        """The packs in the slots of an epoch, each in a random one where its sampler shuffles.

        Sequences are numbered as they stand in `lengths`.
        """
        num_packs = len(self.counts)
        order = np.random.default_rng(seed).permutation(num_packs) if shuffled else np.arange(num_packs)
        starts = np.cumsum(self.counts) - self.counts
        counts = self.counts[order]
        slots = np.repeat(np.arange(num_packs), counts)
        places = np.arange(len(self.lengths)) - np.repeat(np.cumsum(counts) - counts, counts)
        return EpochOrder(np.repeat(starts[order], counts) + places, slots)


def cache_folder() -> Path:
    """Where peers are kept from run to run."""
    return Path(tempfile.gettempdir()) / "longalign-benchmark-peers"


def fetch(packages: Sequence[str], cache: Path) -> Path:
    """Install packages alone, without what they depend on, unless the cache has them.

    Raises:
        PeerError: pip cannot.
    """
    folder = cache / "+".join(packages)
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=cache, prefix=".unfinished-"))
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--retries", "1", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(unfinished), *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_SECONDS)
        if done.returncode:
            raise PeerError(f"pip cannot install {' '.join(packages)}: {_last_line(done.stderr)}")
        unfinished.rename(folder)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"pip took over {_FETCH_SECONDS} s to install {' '.join(packages)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def pack(peer: Peer, folder: Path, lengths: NDArray[np.int32], capacity: int) -> PeerPacks:
    """Pack with a peer in a process of its own.

    Raises:
        PeerError: It failed, took too long, or its packs do not hold what they were given.
    """
    with tempfile.TemporaryDirectory(prefix="longalign-benchmark-") as name:
        given, found = Path(name) / "lengths.npy", Path(name) / "packs.npz"
        np.save(given, lengths)
        command = [sys.executable, "-m", "benchmarks.packing_peer_process"]
        command += [peer.name, str(folder), str(given), str(capacity), str(found)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_PACK_SECONDS,
                cwd=Path(__file__).resolve().parent.parent,
                env=_environment(Path(name)),
            )
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"it took over {_PACK_SECONDS} s for {len(lengths):,} sequences") from error
        if done.returncode < 0:
            raise PeerError(f"signal {-done.returncode} ended it; with 9, the machine may lack memory")
        if done.returncode:
            raise PeerError(_last_line(done.stderr))
        times = json.loads(done.stdout.splitlines()[-1])
        with np.load(found) as arrays:
            packs = PeerPacks(lengths=arrays["lengths"], counts=arrays["counts"], **times)
    _check(packs, lengths, capacity)
    return packs


def _check(packs: PeerPacks, lengths: NDArray[np.int32], capacity: int) -> None:
    starts = np.cumsum(packs.counts) - packs.counts
    if not np.array_equal(np.sort(packs.lengths), np.sort(lengths)):
        raise PeerError(f"{len(lengths)} sequences went in, {len(packs.lengths)} came out")
    if np.add.reduceat(packs.lengths, starts, dtype=np.int64).max() > capacity:
        raise PeerError("a pack is over capacity")


def _environment(folder: Path) -> Mapping[str, str]:
    """Nothing is asked of the hub, nothing is left in the user's caches."""
    return MappingProxyType({**os.environ, "HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1"})


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"
