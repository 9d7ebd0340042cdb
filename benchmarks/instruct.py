"""Self-instruct against a server of set latency and seeded faults: throughput, faults, kills, memory.

`python -m benchmarks.instruct [--quick] [--json FILE]`; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import re
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.chat_server import KINDS, Behaviour, ChatServer, start_chat_server
from benchmarks.instruct_probe import Probe, probe, start, write_documents
from benchmarks.measuring import keep_to_cores, machine
from longalign_core.record_files import read_records
from longalign_core.records import Conversation, Reject

CORES = 2
IN_FLIGHT = 64
CALLS_A_DOCUMENT = 2
TARGETS = {"throughput_vs_ideal": 0.95, "lost": 0, "twice": 0, "repeat_calls_after_kills": 0, "peak_memory_mb": 1000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        throughput_documents: Of `num_tokens` each, asked about without faults.
        latency: Of the server then, seconds.
        fault_documents: Asked about with faults.
        kills: Of one run.
        kill_documents: That it is over.
        memory_documents: Fewer and more, of `num_tokens` each.
        num_tokens: Of a document.
    """

    throughput_documents: int
    latency: float
    fault_documents: int
    kills: int
    kill_documents: int
    memory_documents: tuple[int, int]
    num_tokens: int = 32_000


QUICK = Sizes(
    throughput_documents=1_280,
    latency=1.0,
    fault_documents=400,
    kills=20,
    kill_documents=200,
    memory_documents=(250, 1_280),
)
FULL = Sizes(
    throughput_documents=3_200,
    latency=1.0,
    fault_documents=2_000,
    kills=20,
    kill_documents=1_000,
    memory_documents=(1_000, 10_000),
)


def throughput(sizes: Sizes, folder: Path) -> tuple[Probe, dict[str, Any]]:
    """Calls answered a second, against in-flight ÷ latency; the first and the last round trip count too."""
    write_documents(folder, sizes.throughput_documents, sizes.num_tokens)
    with start_chat_server(Behaviour(latency=(sizes.latency, sizes.latency), faults={})) as server:
        found = probe(folder, server.url, in_flight=IN_FLIGHT, timeout_seconds=60)
        seen = server.counts()
    ideal = IN_FLIGHT / sizes.latency
    span = seen["span_seconds"]
    rate = seen["answered"] / span
    calls = {"calls": int(seen["answered"]), "rate": rate, "ideal": ideal}
    return found, {**calls, "seconds": span, "seconds_with_start_and_archive": found.asking_seconds}


def faults(sizes: Sizes, folder: Path) -> dict[str, int]:
    """Every document ends accepted or rejected with a reason, once, though a tenth of the calls meet a fault."""
    write_documents(folder, sizes.fault_documents, 2_000)
    shares = dict.fromkeys(KINDS, 0.1 / len(KINDS))
    with start_chat_server(Behaviour(latency=(0.05, 0.2), faults=shares, seed=1, retry_after=0.5)) as server:
        probe(folder, server.url, in_flight=IN_FLIGHT, timeout_seconds=3)
        seen = server.counts()
    accepted = [one.id for one in read_records(folder / "out" / "conversations.parquet", Conversation, batch=32)]
    rejected = list(read_records(folder / "out" / "rejects.parquet", Reject))
    ended = [*accepted, *(one.id for one in rejected if one.reason)]
    return {
        "documents": sizes.fault_documents,
        "accepted": len(accepted),
        "rejected": len(rejected),
        "lost": sizes.fault_documents - len(set(ended)),
        "twice": len(ended) - len(set(ended)),
        **{f"met: {kind}": int(seen.get(kind, 0)) for kind in KINDS},
    }


def kills(sizes: Sizes, folder: Path) -> dict[str, int]:
    """Killed at random moments: calls that were answered and stored before a kill and are asked again."""
    write_documents(folder, sizes.kill_documents, 2_000)
    chance = random.Random(0)
    repeated, most_stored, killed = 0, 0, 0
    with start_chat_server(Behaviour(latency=(0.1, 0.6), faults={}, seed=2)) as server:
        stored: dict[str, int] = {}
        for _ in range(sizes.kills):
            answered = server.counts().get("answered", 0)
            run = start(folder, server.url, in_flight=8, timeout_seconds=60)
            _wait_for_answers(server, answered)
            time.sleep(chance.uniform(0.0, 1.0))
            killed += run.poll() is None
            run.kill()
            run.wait()
            asked = {digest: times for digest, (times, _) in server.asked().items()}
            repeated += sum(asked[digest] > times for digest, times in stored.items())
            stored = {digest: asked[digest] for digest in _stored(folder)}
            most_stored = len(stored)
        probe(folder, server.url, in_flight=8, timeout_seconds=60)
        asked = {digest: times for digest, (times, _) in server.asked().items()}
        repeated += sum(asked[digest] > times for digest, times in stored.items())
    conversations = sum(1 for _ in read_records(folder / "out" / "conversations.parquet", Conversation, batch=32))
    assert conversations == sizes.kill_documents, "a document was lost"
    return {"kills": killed, "stored before the last kill": most_stored, "asked again": repeated}


def memory(sizes: Sizes, folder: Path, known: Probe) -> dict[int, Probe]:
    """Fewer and more documents; `known` is what asking about `throughput_documents` came to."""
    probes = {sizes.throughput_documents: known}
    for number in sizes.memory_documents:
        if number not in probes:
            write_documents(folder / str(number), number, sizes.num_tokens)
            with start_chat_server(Behaviour(latency=(0.2, 0.4), faults={})) as server:
                probes[number] = probe(folder / str(number), server.url, in_flight=IN_FLIGHT, timeout_seconds=60)
            shutil.rmtree(folder / str(number))
    return {number: probes[number] for number in sizes.memory_documents}


def run(sizes: Sizes, console: Console) -> dict[str, Any]:
    """Measure everything, print a table, return the figures."""
    begun = time.perf_counter()
    cores = keep_to_cores(CORES)
    with tempfile.TemporaryDirectory(prefix="longalign-benchmark-") as name:
        folder = Path(name)
        known, fast = throughput(sizes, folder / "throughput")
        shutil.rmtree(folder / "throughput")
        met = faults(sizes, folder / "faults")
        cut = kills(sizes, folder / "kills")
        peaks = {number: one.peak_mb for number, one in memory(sizes, folder / "memory", known).items()}
    few, many = sizes.memory_documents
    slope = (peaks[many] - peaks[few]) / (many - few) * 1000
    figures = {
        "throughput_vs_ideal": round(fast["rate"] / fast["ideal"], 3),
        "throughput": {name: round(value, 2) for name, value in fast.items()},
        "faults": met,
        "repeat_calls_after_kills": cut["asked again"],
        "kills": cut,
        "peak_memory_mb": round(max(peaks.values())),
        "memory": {str(number): round(peak) for number, peak in peaks.items()},
        "memory_mb_per_1000_documents": round(slope, 1),
        "targets": TARGETS,
        "device": machine(),
        "cores": cores,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    console.print(_table(figures, sizes))
    return figures


def _wait_for_answers(server: ChatServer, number: float) -> None:
    """Until the server has answered more than so many requests, or for half a minute."""
    for _ in range(300):
        if server.counts().get("answered", 0) > number:
            return
        time.sleep(0.1)


def _stored(folder: Path) -> set[str]:
    """Hashes of the requests whose replies lie in the response store: each reply's text names its request's."""
    file = next((folder / "scratch" / "responses").glob("instruct.sqlite"), None)
    if file is None:
        return set()
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
        texts = [bytes(text).decode("utf-8", "replace") for (text,) in connection.execute("SELECT text FROM replies")]
    found = (re.search(r"(?:text|mark is) ([0-9a-f]{16})", text) for text in texts)
    return {match[1] for match in found if match}


def _table(figures: dict[str, Any], sizes: Sizes) -> Table:
    table = Table(title=f"Self-instruct at {IN_FLIGHT} calls in flight, documents of {sizes.num_tokens:,} tokens")
    for heading in ("", "found", "target"):
        table.add_column(heading, justify="right" if heading else "left")
    fast, met = figures["throughput"], figures["faults"]
    table.add_row(f"throughput, {fast['calls']:,} calls", f"{fast['rate']:.1f} of {fast['ideal']:.0f} calls/s", "")
    table.add_row("… as a share of the ideal", f"{figures['throughput_vs_ideal']:.3f}", "0.95 or more")
    table.add_section()
    table.add_row("documents asked about with 10 % faults", f"{met['documents']:,}", "")
    table.add_row("… accepted / rejected", f"{met['accepted']:,} / {met['rejected']:,}", "all")
    table.add_row("… lost / twice", f"{met['lost']} / {met['twice']}", "0 / 0")
    table.add_section()
    table.add_row(f"asked again after {figures['kills']['kills']} kills", f"{figures['repeat_calls_after_kills']}", "0")
    table.add_section()
    for number, peak in figures["memory"].items():
        table.add_row(f"peak memory, {int(number):,} documents", f"{peak:,} MB", "below 1,000 MB")
    table.add_row("… growth for 1,000 more", f"{figures['memory_mb_per_1000_documents']} MB", "")
    return table


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, under three minutes on an idle machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    console = Console()
    console.width = max(console.width, 100)  # or figures are cut off where output is no terminal
    figures = run(QUICK if options.quick else FULL, console)
    if options.json:
        options.json.write_text(json.dumps({**figures, "quick": options.quick}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
