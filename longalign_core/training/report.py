"""How a training run went, for people: one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from longalign_core.page_frame import render_page
from longalign_core.training.length_losses import BUCKETS
from longalign_core.training.metrics import StepMetrics, run_figures
from longalign_core.training.pictures import bucket_curves, lines, loss_curve, plain_curve, rank_bars
from longalign_core.training.waiting import Work, rank_idle_shares

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_GIB = 2.0**30


def training_page(steps: Sequence[StepMetrics], title: str) -> str:
    """One page that asks nothing of the network, readable by day and by night.

    Args:
        steps: All steps of the run, at least one.
        title: What was trained.
    """
    figures = run_figures(steps)
    return render_page(
        _TEMPLATE,
        title=title,
        steps=len(steps),
        sequences=sum(one.num_sequences for one in steps),
        tokens=sum(one.tokens for one in steps),
        last=steps[-1],
        figures=figures,
        loss=loss_curve(steps),
        buckets=bucket_curves(steps, BUCKETS),
        learning_rate=plain_curve(steps, [one.learning_rate for one in steps], "learning rate"),
        grad_norm=plain_curve(steps, [one.grad_norm for one in steps], "gradient norm"),
        speed=lines(steps, {"tokens/s": [one.tokens_per_second for one in steps]}, "tokens per second"),
        mfu=lines(steps, {"MFU": [_percent(one.mfu) for one in steps]}, "% of peak FLOPs") if "mfu" in figures else "",
        memory=_memory(steps),
        idle=_idle(steps),
        ranks=_ranks(steps),
    )


def _memory(steps: Sequence[StepMetrics]) -> str:
    columns = {
        "device, tensors at peak": [one.allocated_bytes for one in steps],
        "device, reserved": [one.reserved_bytes for one in steps],
        "host, resident": [one.rss_bytes for one in steps],
    }
    known = {name: column for name, column in columns.items() if any(column)}
    return lines(
        steps, {name: [value and value / _GIB for value in column] for name, column in known.items()}, "GiB a rank"
    )


def _idle(steps: Sequence[StepMetrics]) -> str:
    columns = {
        "measured": [_percent(one.idle_measured) for one in steps],
        "predicted": [_percent(one.idle_predicted) for one in steps],
    }
    known = {name: column for name, column in columns.items() if any(one is not None for one in column)}
    return lines(steps, known, "% of time waiting") if known else ""


def _ranks(steps: Sequence[StepMetrics]) -> str:
    """Over the steps with as many ranks as the last: a resumed run may have others."""
    measured = _rank_shares([one.measured for one in steps])
    predicted = _rank_shares([one.predicted for one in steps])
    return rank_bars(measured, predicted) if measured or predicted else ""


def _rank_shares(works: Sequence[Work]) -> list[float]:
    alike = [work for work in works if len(work.ranks) == len(works[-1].ranks)]
    return rank_idle_shares(alike) if works[-1].ranks else []


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
