"""What has to be said beside the figures of strategies, on a terminal, a page or a picture."""

from __future__ import annotations

from collections.abc import Sequence

from longalign_core.batching.comparison import UNPACKED, StrategyRow

# About as good as the best: the difference is less than what the figures leave out.
_NEAR_BEST = 1.05
# Packs a rank in an epoch, below which its last step decides.
_FEW_MICRO_STEPS = 20


def verdict(rows: Sequence[StrategyRow]) -> str:
    """Which strategy to take, and why; empty where there is nothing to choose.

    Of the fastest it is one of those with fewest micro-steps, and of these the one whose steps are
    most alike in sequences.
    """
    compared = [row for row in rows if row["sequences"] == rows[0]["sequences"]]
    if len(compared) < 2:
        return ""
    fastest = min(row["time_vs_ideal"] for row in compared)
    near = [row for row in compared if row["time_vs_ideal"] <= _NEAR_BEST * fastest]
    fewest = min(row["micro_steps"] for row in near)
    # Not by ess: of few sequences it tells of the part-filled last step alone.
    best = min((row for row in near if row["micro_steps"] <= _NEAR_BEST * fewest), key=_unevenness)
    words = f"Best here: {best['strategy']}, {best['time_vs_ideal']:.2f} × the ideal time"
    if more := [row for row in near if row["micro_steps"] > _NEAR_BEST * fewest]:
        others = " and ".join(f"{row['micro_steps']:,} of {row['strategy']}" for row in more)
        words += f" in {counted(best['micro_steps'], 'micro-step')} against {others}, each with costs of its own"
    return f"{words}."


def _unevenness(row: StrategyRow) -> float:
    return row["sequences_per_step_spread"]["standard_deviation"] / row["sequences_per_step"]


def time_note(rows: Sequence[StrategyRow]) -> str:
    """What times leave out."""
    return (
        "Time counts the work of sequences alone: a micro-step has costs of its own (kernels to start, gradients to "
        "exchange), so where there are many they take longer than shown."
        if all(row["cost_unit"] == "flops" for row in rows)
        else "Time is what the measured packs took."
    )


def notes(rows: Sequence[StrategyRow]) -> list[str]:
    """All that the tables need said, a sentence each."""
    first = rows[0]
    told = [time_note(rows)]
    told.append(
        "idle: ranks meet after every micro-step, as under ZeRO 2 and 3; "
        "idle_once_a_step_by_ranks in --json: under ZeRO 0 and 1."
    )
    if min(row["micro_steps"] for row in rows) < _FEW_MICRO_STEPS:
        told.append(
            "some strategies have so few micro-steps that the part-filled last step decides: with fewer packs a step, "
            "or more data, its share falls."
        )
    told.append(f"long tokens: share of a step's tokens in sequences of {first['long_tokens']:,} and more.")
    unpacked = [row for row in rows if row["strategy"] in UNPACKED]
    if unpacked:
        told.append(
            f"{' and '.join(row['strategy'] for row in unpacked)}: one sequence a slot, so a step is "
            f"{counted(unpacked[0]['slots_per_step'], 'slot')}, which hold about as many sequences as a packed step."
        )
    if any(row["empty_slots"] for row in rows):
        empty = ", ".join(f"{row['strategy']} {row['empty_slots']:,}" for row in rows)
        told.append(
            f"empty slots of the last step: {empty}. Its sequences weigh more than others, unless weights are divided "
            "by the epoch's mean."
        )
    if hardware := first["hardware"]:
        epochs = counted(hardware["epochs"], "epoch")
        if hardware["gpus"] is None:
            where = "by the measured packs"
        else:
            where = f"on {counted(hardware['gpus'], 'GPU')} of {hardware['tflops']:g} TFLOP/s each"
        told.append(f"hours: {epochs} {where}, every micro-step as long as its slowest rank takes.")
    return told


def in_hours(hours: float | None) -> str:
    """Hours in three significant digits; empty where they are not known."""
    if hours is None:
        return ""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:#.3g}"


def counted(number: int, noun: str) -> str:
    """A number of things in words."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
