"""A finished training's curves for the UI: one picture and one table."""

from __future__ import annotations

from pathlib import Path

from longalign_core.drawing import as_file
from longalign_core.record_files import read_records
from longalign_core.training.metrics import StepMetrics
from longalign_core.training.pictures import loss_curve

_ROWS = 20


def curve_picture(folder: Path) -> str:
    """The loss as an SVG file.

    Args:
        folder: Product of `train` or `extend`.
    """
    return as_file(loss_curve(_steps(folder)))


def curve_rows(folder: Path) -> list[dict[str, str | int]]:
    """At most so many steps of the run at even distances, the first and the last among them.

    Args:
        folder: As for `curve_picture`.
    """
    steps = _steps(folder)
    last = len(steps) - 1
    places = sorted({round(row * last / (_ROWS - 1)) for row in range(_ROWS)})
    return [_row(steps[place]) for place in places]


def _steps(folder: Path) -> list[StepMetrics]:
    return list(read_records(folder / "metrics.parquet", StepMetrics))


def _row(step: StepMetrics) -> dict[str, str | int]:
    return {
        "step": step.step,
        "loss": f"{step.loss:.4f}",
        "token loss": f"{step.token_loss:.4f}",
        "gradient norm": f"{step.grad_norm:.4g}",
        "learning rate": f"{step.learning_rate:.3g}",
        "tokens/s": f"{step.tokens_per_second:,.0f}",
        "MFU": _percent(step.mfu),
        "waiting, measured": _percent(step.idle_measured),
        "waiting, predicted": _percent(step.idle_predicted),
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
