"""The tables of the packing benchmark, made of its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

_SEQUENCES = {"100k": "100k", "1m": "1M", "10m": "10M"}


def all_tables(figures: Mapping[str, Any]) -> Iterator[Table]:
    """One after the other."""
    yield _packs(figures)
    yield _times(figures)
    yield _encoding(figures)


def _packs(figures: Mapping[str, Any]) -> Table:
    """Our row, each peer's, and what is aimed at."""
    title = f"{figures['sequences']:,} sequences in packs of {figures['capacity']:,}, 8 ranks, 8 and 32 packs a step"
    table = _table(title, "", "packs", "utilisation", "idle 8x8", "idle 8x32", "ess 8", "ess 32")
    rows = {"longalign": figures, **figures["peers"]}
    for name, row in rows.items():
        shares = (row["utilisation"], row["idle"]["8x8"], row["idle"]["8x32"], row["ess_step_8"], row["ess_step_32"])
        table.add_row(name, f"{row['packs']:,}", *(f"{share:.4f}" for share in shares))
    for name in figures["peers_skipped"]:
        table.add_row(name, "not measured")
    table.add_section()
    targets = figures["targets"]
    idle, ess = f"<= {targets['idle']}", f">= {targets['ess_step']}"
    table.add_row("target", "", f">= {targets['utilisation']}", idle, idle, ess, ess)
    worst = figures["idle_worst_of_all_ranks"]
    skipped = "".join(f"\n{name}: {why}" for name, why in figures["peers_skipped"].items())
    table.caption = (
        f"longalign's idle at its worst number of ranks: {worst['8']:.4f} and {worst['32']:.4f}; "
        f"ess with the epoch's mean: {figures['ess_epoch']:.4f}{skipped}"
    )
    return table


def _times(figures: Mapping[str, Any]) -> Table:
    """Processor seconds by number of sequences."""
    headings = [f"{what} {number}" for what in ("pack", "plan") for number in _SEQUENCES.values()]
    table = _table("Processor seconds to pack, and to plan an epoch", "", *headings)
    for name, row in {"longalign": figures, **figures["peers"]}.items():
        seconds = [row[what].get(key) for what in ("first_fit_cpu_seconds", "plan_cpu_seconds") for key in _SEQUENCES]
        table.add_row(name, *("" if one is None else f"{one:.2f}" for one in seconds))
    table.add_section()
    targets = figures["targets"]
    first_fit, plan = targets["first_fit_cpu_seconds_10m"], targets["plan_cpu_seconds_10m"]
    table.add_row("target", "", "", f"<= {first_fit}", "", "", f"<= {plan}")
    last = list(figures["plan_peak_memory_mb"])[-1]
    notes = [
        f"{name} at {_SEQUENCES[key]}: {why}"
        for name, row in figures["peers"].items()
        for key, why in row["not_measured"].items()
    ]
    written = (
        f"longalign's plan file at {_SEQUENCES[last]}: {figures['plan_file_cpu_seconds'][last]:.2f} s more; "
        f"peak memory {figures['plan_peak_memory_mb'][last]:,} MB (<= {targets['plan_peak_memory_mb_10m']:,})"
    )
    table.caption = "\n".join([written, *notes])
    return table


def _encoding(figures: Mapping[str, Any]) -> Table:
    """Speeds of encoding, and what a token takes on disk."""
    title = f"Encoding {figures['encoded_tokens']:,} tokens of long documents (1 = as fast)"
    table = _table(title, "", "ours, s", "peer, s", "by medians", "by CPU time", "target")
    names = {
        "encode_vs_tokenizers": "ChatFormat.encode / encode_batch and ids",
        "encode_vs_datasets_map": "stage encode / datasets.map, ids and mask",
        "encode_vs_datasets_map_batched": "... / the same, batched=True",
        "encode_vs_datasets_map_batched_without_mask": "... / the same, batched, ids alone",
    }
    targets = figures["targets"]
    for key, label in names.items():
        seconds = figures["encoding_seconds"][key]
        shown = (seconds["ours"], seconds["peer"], figures[key], figures[f"{key}_by_cpu_time"])
        table.add_row(label, *(f"{one:.3f}" for one in shown), f">= {targets[key]}" if key in targets else "")
    table.add_section()
    stored = f"{figures['bytes_per_token']:.3f}"
    table.add_row("bytes a token, all that the stage leaves", "", "", stored, "", f"<= {targets['bytes_per_token']}")
    opened = figures["store_open"]
    table.caption = (
        f"a token store of {opened['sequences']:,} sequences opens in {opened['seconds']:.3f} s "
        f"and takes {opened['memory_mb']:.0f} MB"
    )
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    return table
