"""Readers against their parsers, memory against the size of the input, token counting against `tokenizers`.

`python -m benchmarks.ingest [--quick] [--json FILE]`; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from benchmarks import ingest_inputs as inputs
from benchmarks.ingest_peers import compare_counting, compare_reader, texts_of
from benchmarks.ingest_probe import Probe, probe
from benchmarks.measuring import Comparison, keep_to_cores, machine
from longalign_core.corpora.readers import READERS

CORES = 2
TARGETS = {"speed_vs_parser": 0.8, "memory_growth": 1.2, "count_vs_tokenizers": 0.85}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        speed_bytes: Text in the files whose reading is timed.
        turns: Of each comparison.
        small_bytes: Small input of the memory measurement.
        large_bytes: Large one.
        vocabulary: Of the tokenizer.
        num_counted: Documents whose tokens are counted.
    """

    speed_bytes: int
    turns: int
    small_bytes: int
    large_bytes: int
    vocabulary: int
    num_counted: int


QUICK = Sizes(
    speed_bytes=60 << 20,
    turns=7,
    small_bytes=20_000_000,
    large_bytes=400_000_000,
    vocabulary=16_000,
    num_counted=2_000,
)
FULL = Sizes(
    speed_bytes=300 << 20,
    turns=11,
    small_bytes=100_000_000,
    large_bytes=2_000_000_000,
    vocabulary=32_000,
    num_counted=10_000,
)

SAMPLES = {
    "arxiv": "arxiv",
    "books": "books",
    "clue": "clue",
    "json_array": "wudao",
    "json_lines": "c4",
    "mediawiki": "wikipedia",
    "repository": "github",
    "stackexchange": "stackexchange",
    "warc": "commoncrawl",
}
"""Format to folder of its native sample."""


@dataclass(frozen=True, slots=True)
class GrowingInput:
    """A kind of input whose reading must not take more memory when there is more of it.

    Attributes:
        format: Of the corpus.
        file_name: Of the input.
        write: Makes it, of a size in bytes.
        what: The reader alone, or a whole shard with cleaning and writing.
    """

    format: str
    file_name: str
    write: Callable[[Path, int], Path]
    what: Literal["read", "shard"] = "read"


GROWING = {
    "jsonl": GrowingInput("json_lines", "a.jsonl.gz", inputs.write_packed_json_lines),
    "json array": GrowingInput("json_array", "a.json", inputs.write_json_array),
    "parquet": GrowingInput("parquet", "a.parquet", inputs.write_parquet),
    "wet": GrowingInput("warc", "a.wet.gz", inputs.write_wet),
    "jsonl to parquet parts": GrowingInput("json_lines", "a.jsonl", inputs.write_json_lines, "shard"),
}


def speed_vs_parser(sizes: Sizes, folder: Path) -> dict[str, Comparison]:
    """Readers alone against their parsers."""
    jsonl = inputs.write_json_lines(folder / "speed.json.gz", sizes.speed_bytes)
    parquet = inputs.write_parquet(folder / "speed.parquet", sizes.speed_bytes)
    (warc,) = (inputs.samples() / "commoncrawl").glob("*.warc.gz")
    found = {
        "jsonl": compare_reader("json_lines", jsonl, turns=sizes.turns),
        "parquet": compare_reader("parquet", parquet, turns=sizes.turns),
    }
    if "warc" in READERS:
        found["warc"] = compare_reader("warc", warc, turns=min(3, sizes.turns))
    jsonl.unlink()
    parquet.unlink()
    return found


def memory(sizes: Sizes, folder: Path) -> dict[str, tuple[Probe, Probe]]:
    """Each kind of input, small and large."""
    found = {}
    for name, kind in GROWING.items():
        if kind.format not in READERS:
            continue
        probes = []
        for num_bytes in (sizes.small_bytes, sizes.large_bytes):
            file = kind.write(folder / kind.file_name, num_bytes)
            probes.append(probe(kind.what, {"format": kind.format, "location": str(file)}))
            file.unlink()
        found[name] = (probes[0], probes[1])
    return found


def native_samples() -> dict[str, Probe]:
    """Every format that has a reader and a sample, in its own process."""
    folders = {name: inputs.samples() / folder for name, folder in SAMPLES.items()}
    return {
        name: probe("read", {"format": name, "location": str(folder), "redistributable": False})
        for name, folder in folders.items()
        if name in READERS and folder.is_dir()
    }


def run(sizes: Sizes, console: Console) -> dict[str, Any]:
    """Measure everything, print tables, return the figures."""
    start = time.perf_counter()
    cores = keep_to_cores(CORES)
    with tempfile.TemporaryDirectory(prefix="longalign-benchmark-") as name:
        folder = Path(name)
        speeds = speed_vs_parser(sizes, folder)
        counting = compare_counting(texts_of(sizes.num_counted), vocabulary=sizes.vocabulary, turns=min(5, sizes.turns))
        peaks = memory(sizes, folder)
    formats = native_samples()
    growths = {name: large.peak_mb / small.peak_mb for name, (small, large) in peaks.items()}
    _print_comparisons(console, speeds, counting)
    _print_probes(console, formats, peaks)
    return {
        "speed_vs_parser": {name: round(one.speed_ratio, 3) for name, one in speeds.items()},
        "memory_growth": round(max(growths.values()), 3),
        "count_vs_tokenizers": round(counting.speed_ratio, 3),
        "memory_growth_by_input": {name: round(growth, 3) for name, growth in growths.items()},
        "peak_memory_mb": {name: [round(one.peak_mb) for one in both] for name, both in peaks.items()},
        "speed_vs_parser_by_cpu_time": {name: round(one.cpu_ratio, 3) for name, one in speeds.items()},
        "count_vs_tokenizers_by_cpu_time": round(counting.cpu_ratio, 3),
        "input_mb": [sizes.small_bytes / 1e6, sizes.large_bytes / 1e6],
        "samples": {
            name: {"documents_per_second": round(one.documents / one.seconds, 1), "peak_mb": round(one.peak_mb)}
            for name, one in formats.items()
        },
        "targets": TARGETS,
        "device": machine(),
        "cores": cores,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - start, 1),
    }


def _print_comparisons(console: Console, speeds: dict[str, Comparison], counting: Comparison) -> None:
    table = Table(title="Against the parser or the tokenizer alone (1 = as fast)")
    for heading in ("", "ours, s", "alone, s", "by medians", "by CPU time", "target"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, one in {**speeds, "token counting": counting}.items():
        target = TARGETS["count_vs_tokenizers" if one is counting else "speed_vs_parser"]
        figures = (min(one.ours), min(one.peer), one.speed_ratio, one.cpu_ratio)
        table.add_row(name, *(f"{figure:.3f}" for figure in figures), f"{target} or more")
    console.print(table)


def _print_probes(console: Console, formats: dict[str, Probe], peaks: dict[str, tuple[Probe, Probe]]) -> None:
    table = Table(title=f"Each in a process of its own (growth at most {TARGETS['memory_growth']})")
    for heading in ("", "input", "documents", "rejects", "doc/s", "MB/s", "peak MB", "growth"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, one in formats.items():
        _add_probe(table, f"{name} sample", one, "")
    for name, (small, large) in peaks.items():
        table.add_section()
        _add_probe(table, name, small, "")
        _add_probe(table, name, large, f"{large.peak_mb / small.peak_mb:.2f}")
    console.print(table)


def _add_probe(table: Table, name: str, one: Probe, growth: str) -> None:
    table.add_row(
        name,
        f"{one.stored_bytes / 1e6:.1f}",
        f"{one.documents:,}",
        f"{one.rejects:,}",
        f"{one.documents / one.seconds:,.0f}",
        f"{one.text_bytes / one.seconds / 1e6:.1f}",
        f"{one.peak_mb:.0f}",
        growth,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, under three minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    console = Console()
    console.width = max(console.width, 100)  # or figures are cut off where output is no terminal
    figures = run(QUICK if options.quick else FULL, console)
    if options.json:
        options.json.write_text(json.dumps({**figures, "quick": options.quick}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
