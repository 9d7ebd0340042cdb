"""Plans against the packers of other trainers on the same lengths; encoding against tokenizers and `datasets.map`.

`python -m benchmarks.packing [--quick] [--json FILE] [--peers FOLDER]`; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import packing_tables as tables
from benchmarks.measuring import keep_to_cores, machine
from benchmarks.packing_encoding import EncodingFigures, measure_encoding
from benchmarks.packing_peers import PEERS, Peer, PeerError, PeerPacks, cache_folder, fetch, pack
from benchmarks.packing_probe import CAPACITY, OpenProbe, PlanProbe, batching_of, lengths_of, probe_open, probe_plan
from longalign_core.batch_plan import EpochOrder
from longalign_core.batching.cost import CostModel
from longalign_core.batching.figures import PlanFigures
from longalign_core.batching.report import PlanReport
from longalign_core.batching.strategies import order_epochs
from longalign_core.loss_scales import Normaliser

CORES = 2
RANKS = 8
STEPS = (8, 32)
"""Packs a step; each step of 32 is 4 micro-steps of the 8 ranks."""
SIZES = {"100k": 100_000, "1m": 1_000_000, "10m": 10_000_000}
TARGETS = {
    "utilisation": 0.999,
    "idle": 0.01,
    "ess_step": 0.98,
    "ess_epoch": 1.0,
    "first_fit_cpu_seconds_10m": 3,
    "plan_cpu_seconds_10m": 60,
    "plan_peak_memory_mb_10m": 1500,
    "encode_vs_tokenizers": 0.85,
    "encode_vs_datasets_map": 2,
    "bytes_per_token": 4.1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        compared: Sequences whose packs are compared.
        plans: Sequences that are planned for the times, by their key.
        peer_plans: The same of peers.
        documents: That are encoded.
        vocabulary: Of the tokenizer.
        turns: Of each comparison of speeds.
        stored: Sequences of the token store that is opened.
        every_peer: Whether those are run that take minutes.
    """

    compared: int
    plans: Mapping[str, int]
    peer_plans: Mapping[str, int]
    documents: int
    vocabulary: int
    turns: int
    stored: int
    every_peer: bool


QUICK = Sizes(
    compared=100_000,
    plans=SIZES,
    peer_plans={"100k": SIZES["100k"]},
    documents=50,
    vocabulary=16_000,
    turns=3,
    stored=100_000,
    every_peer=False,
)
FULL = Sizes(
    compared=100_000,
    plans=SIZES,
    peer_plans=SIZES,
    documents=100,
    vocabulary=32_000,
    turns=5,
    stored=10_000_000,
    every_peer=True,
)


def our_quality(sizes: Sizes) -> dict[str, Any]:
    """Figures of `balanced` over the compared lengths."""
    lengths = lengths_of(sizes.compared)
    orders = {step: next(order_epochs(lengths, batching_of(step), epochs=1)) for step in STEPS}
    return {
        **_quality(lengths, orders.__getitem__),
        "ess_epoch": round(_figures(lengths, orders[8], 8, "epoch").ess, 4),
    }


def peer_quality(packs: PeerPacks, *, shuffled: bool) -> dict[str, Any]:
    """The same figures of a peer's packs, in the slots where its sampler puts them."""
    order = packs.in_slots(shuffled=shuffled, seed=0)
    return _quality(packs.lengths, lambda _: order)


def measure_peers(sizes: Sizes, cache: Path, console: Console) -> tuple[dict[str, Any], dict[str, str]]:
    """Every peer's figures, and why those without are so. What cannot be measured is printed."""
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for peer in PEERS:
        if not peer.in_quick and not sizes.every_peer:
            skipped[peer.name] = f"not in a quick run: {peer.why_no_more}"
            continue
        try:
            found[peer.name] = _measure_peer(peer, sizes, cache)
        except PeerError as error:
            skipped[peer.name] = str(error)
            console.print(f"[bold red]{peer.name} is not measured:[/] {error}", highlight=False)
    return found, skipped


def run(sizes: Sizes, console: Console, peers: Path | None = None) -> dict[str, Any]:
    """Measure everything, print tables, return the figures.

    Args:
        sizes: How much.
        console: What is printed to.
        peers: Folder that keeps the peers; None for one under TMPDIR.
    """
    begun = time.perf_counter()
    cores = keep_to_cores(CORES)
    quality = our_quality(sizes)
    with tempfile.TemporaryDirectory(prefix="longalign-benchmark-") as name:
        folder = Path(name)
        plans = {key: probe_plan(number, folder / key) for key, number in sizes.plans.items()}
        others, skipped = measure_peers(sizes, peers or cache_folder(), console)
        opened = probe_open(sizes.stored, folder / "stored")
        (folder / "encoding").mkdir()
        encoding = measure_encoding(
            folder / "encoding", num_documents=sizes.documents, vocabulary=sizes.vocabulary, turns=sizes.turns
        )
    figures = {
        **quality,
        **_plan_figures(plans),
        "peers": others,
        "peers_skipped": skipped,
        **_encoding_figures(encoding),
        "store_open": _rounded(opened),
        "sequences": sizes.compared,
        "capacity": CAPACITY,
        "targets": TARGETS,
        "device": machine(),
        "cores": cores,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    for table in tables.all_tables(figures):
        console.print(table)
    return figures


def _quality(lengths: Any, order_of: Callable[[int], EpochOrder]) -> dict[str, Any]:
    by_step = {step: _figures(lengths, order_of(step), step, "step") for step in STEPS}
    return {
        "packs": by_step[8].packs,
        "utilisation": round(min(one.utilisation for one in by_step.values()), 5),
        "idle": {f"{RANKS}x{step}": round(one.idle[str(RANKS)], 5) for step, one in by_step.items()},
        "idle_worst_of_all_ranks": {str(step): round(max(one.idle.values()), 5) for step, one in by_step.items()},
        **{f"ess_step_{step}": round(one.ess, 4) for step, one in by_step.items()},
    }


def _figures(lengths: Any, order: EpochOrder, packs_per_step: int, normaliser: Normaliser) -> PlanFigures:
    report = PlanReport(
        lengths=lengths,
        targets=lengths,
        capacity=CAPACITY,
        packs_per_step=packs_per_step,
        alpha=1.0,
        normaliser=normaliser,
        cost_model=CostModel(),
    )
    report.add(order)
    return report.figures()


def _measure_peer(peer: Peer, sizes: Sizes, cache: Path) -> dict[str, Any]:
    folder = fetch(peer.packages, cache)
    lengths = lengths_of(sizes.compared)
    compared = pack(peer, folder, lengths, CAPACITY)
    first_fit, plan, notes = {}, {}, {}
    for key, number in sizes.peer_plans.items():
        if number > peer.most_sequences:
            notes[key] = peer.why_no_more
            continue
        try:
            one = compared if number == sizes.compared else pack(peer, folder, lengths_of(number), CAPACITY)
        except PeerError as error:
            notes[key] = str(error)
            continue
        first_fit[key], plan[key] = round(one.pack_cpu_seconds, 3), round(one.plan_cpu_seconds, 3)
    return {
        **peer_quality(compared, shuffled=peer.shuffles),
        "first_fit_cpu_seconds": first_fit,
        "plan_cpu_seconds": plan,
        "not_measured": notes,
        "packages": list(peer.packages),
        "peak_memory_mb": round(compared.peak_mb),
    }


def _plan_figures(plans: Mapping[str, PlanProbe]) -> dict[str, Any]:
    return {
        "first_fit_cpu_seconds": {key: round(one.first_fit_cpu_seconds, 3) for key, one in plans.items()},
        "plan_cpu_seconds": {key: round(one.plan_cpu_seconds, 3) for key, one in plans.items()},
        "plan_file_cpu_seconds": {key: round(one.write_cpu_seconds, 3) for key, one in plans.items()},
        "plan_peak_memory_mb": {key: round(one.peak_mb) for key, one in plans.items()},
    }


def _encoding_figures(found: EncodingFigures) -> dict[str, Any]:
    comparisons = {
        "encode_vs_tokenizers": found.tokenizers,
        "encode_vs_datasets_map": found.datasets_map,
        "encode_vs_datasets_map_batched": found.datasets_map_batched,
        "encode_vs_datasets_map_batched_without_mask": found.datasets_map_batched_without_mask,
    }
    return {
        **{name: round(one.speed_ratio, 3) for name, one in comparisons.items()},
        **{f"{name}_by_cpu_time": round(one.cpu_ratio, 3) for name, one in comparisons.items()},
        "encoding_seconds": {
            name: {"ours": round(min(one.ours), 3), "peer": round(min(one.peer), 3)}
            for name, one in comparisons.items()
        },
        "encoded_tokens": found.tokens,
        "bytes_per_token": round(found.bytes_per_token, 4),
    }


def _rounded(opened: OpenProbe) -> dict[str, float]:
    return {name: round(value, 4) for name, value in dataclasses.asdict(opened).items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="peers at 100,000 sequences only; under three minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="keep the peers there, not under TMPDIR")
    options = parser.parse_args()
    console = Console()
    console.width = max(console.width, 110)  # or figures are cut off where output is no terminal
    figures = run(QUICK if options.quick else FULL, console, options.peers)
    if options.json:
        options.json.write_text(json.dumps({**figures, "quick": options.quick}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
