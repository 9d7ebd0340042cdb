"""The tables of the training benchmark, made of its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

_STRATEGIES = {
    "naive": "naive: a sequence a slot",
    "sorted": "sorted",
    "longalign": "the reference's packing, padded",
    "balanced": "ours: balanced",
}


def all_tables(figures: Mapping[str, Any]) -> Iterator[Table]:
    """One after the other."""
    yield _strategies(figures)
    yield _ratios(figures)
    if "trl" in figures:
        yield _trl(figures)
    yield parity_table(figures)
    if figures["gpu"]:
        yield _gpu(figures["gpu"])


def _strategies(figures: Mapping[str, Any]) -> Table:
    title = f"{figures['sequences']} sequences of the paper's mix ÷ 32, {figures['ranks']} ranks with a core each"
    table = _table(title, "", "slots", "TFLOP", "tokens/s", "of slots alone", "idle", "predicted", "not computing")
    for name, row in figures["strategies"].items():
        speeds = (f"{row[key]:,.0f}" for key in ("tokens_per_second", "lockstep_tokens_per_second"))
        shares = (f"{row[key]:.3f}" for key in ("idle_measured", "idle_predicted", "not_computing"))
        table.add_row(_STRATEGIES[name], str(row["slots"]), f"{row['tflop']:.3f}", *speeds, *shares)
    table.caption = (
        "tokens/s: wall time, other work on the machine included. Of slots alone: from every slot's processor seconds, "
        "ranks meeting after each. Idle: as the trainer itself measures and predicts it. Not computing: share of wall "
        f"time that is no slot's. Load before the run: {figures['load_before']} cores"
    )
    return table


def _ratios(figures: Mapping[str, Any]) -> Table:
    table = _table("Ours against", "", "by wall time", "of slots alone", "by FLOPs", "target")
    targets, flops = figures["targets"], figures["vs_naive_by_flops"]
    rows = (
        ("naive, 2 ranks", figures["vs_naive"], figures["vs_naive_of_slots"], flops["2"], targets["vs_naive"]),
        ("naive, 8 ranks", None, figures["vs_naive_8_ranks"], flops["8"], targets["vs_naive_8_ranks"]),
        ("sorted, 2 ranks", figures["vs_sorted"], figures["vs_sorted_of_slots"], None, None),
        (
            "the reference's packing, 2 ranks",
            figures["vs_reference_packing"],
            figures["vs_reference_packing_of_slots"],
            None,
            targets["vs_reference_packing"],
        ),
    )
    for name, *values, target in rows:
        shown = ("" if value is None else f"{value:.2f}" for value in values)
        table.add_row(name, *shown, "" if target is None else f">= {target}")
    loss = figures["loss"]
    table.caption = (
        f"peak memory of the loss: {loss['chunked']['memory_mb']:,.0f} MB, plain {loss['plain']['memory_mb']:,.0f} MB "
        f"({figures['peak_memory_vs_plain_loss']:.3f})"
    )
    return table


def _trl(figures: Mapping[str, Any]) -> Table:
    found = figures["trl"]
    title = f"The same {found['sequences']} sequences, {found['epochs']} epochs, every token weighing the same"
    table = _table(title, "", "packs", "steps", "tokens/s", "CPU s of a rank", "held-out loss")
    for name in ("ours", "trl"):
        row = found[name]
        table.add_row(
            {"ours": "ours", "trl": found["package"]}[name],
            str(row["packs"]),
            str(row["steps"]),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['cpu_seconds']:.1f}",
            f"{found['held_out_loss'][name]:.4f}",
        )
    table.add_row("before training", "", "", "", "", f"{found['held_out_loss']['base']:.4f}")
    table.caption = (
        f"ours ÷ TRL: {figures['vs_trl']:.2f} by wall time, {figures['vs_trl_by_cpu_time']:.2f} by processor time; "
        f"the same loss at every step, to {figures['trl_loss_difference']:.0e}"
    )
    return table


def parity_table(figures: Mapping[str, Any]) -> Table:
    """Worst error of every form of the loss by ranks, ranks that share a pack, micro-steps and ZeRO stage."""
    rows = figures["parity"]
    forms = list(dict.fromkeys(row["form"] for row in rows))
    headings = ("ranks", "share a pack", "micro-steps", "ZeRO")
    table = _table("Worst relative error of any gradient", *headings, *forms)
    keys = ("ranks", "sequence_parallel", "micro_steps", "zero")
    errors = {(*(row[key] for key in keys), row["form"]): row["error"] for row in rows}
    for split in sorted({tuple(row[key] for key in keys) for row in rows}):
        shown = (errors.get((*split, form)) for form in forms)
        table.add_row(*map(str, split), *("" if error is None else f"{error:.0e}" for error in shown))
    worst, target = figures["parity_max_rel_error"], figures["targets"]["parity_max_rel_error"]
    table.caption = f"worst of all: {worst:.1e} (<= {target:.0e}), against one sequence at a time in float64"
    return table


def _gpu(found: Mapping[str, Any]) -> Table:
    table = _table(f"{found['device']}: {found['model']}", "loss", "MFU", "TFLOP/s", "tokens/s", "longest context")
    for name, row in found["losses"].items():
        mfu = "" if row["mfu"] is None else f"{row['mfu']:.3f}"
        longest = f"{'>= ' if row['longest_is_cap'] else ''}{row['longest_context']:,}"
        table.add_row(name, mfu, f"{row['tflop_per_second']:.1f}", f"{row['tokens_per_second']:,.0f}", longest)
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right" if heading not in ("", "loss") else "left")
    return table
