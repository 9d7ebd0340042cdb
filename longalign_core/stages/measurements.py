"""What training needs to know of its plan's costs, and what it leaves of its measurements."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow.parquet as pq

from longalign_core.batch_plan import PLAN_FILE, BatchPlan
from longalign_core.errors import InputError
from longalign_core.stage import Counts

if TYPE_CHECKING:
    from longalign_core.training.metrics import StepMetrics

log = logging.getLogger(__name__)

PAGE = "report.html"
_COSTS_FILE = ".slot_costs.npy"
# A process's first steps are slower than those that follow.
_WARM_UP = 2
_MOST_PACKS = 5_000


def write_slot_costs(plan: Path, base_model: Path, out_dir: Path, *, frozen: bool = False) -> Path | None:
    """Write the FLOPs of every slot of a plan, as training reads them.

    Args:
        plan: Folder of the batch plan.
        base_model: Folder of the model.
        out_dir: Where the file goes.
        frozen: Whether the model's own weights stay as they are (LoRA), so that the third of the matrix
            products that give their gradients is not computed. Those of the adapters are left out.

    Returns:
        An array file, shape (steps, packs_per_step); None where a config does not tell the model's costs.
    """
    from longalign_core.batching.model_file import cost_model_of

    try:
        costs = cost_model_of(base_model)
    except InputError as error:
        log.warning("neither idle time is predicted nor MFU measured: %s", error)
        return None
    if frozen:
        costs = replace(costs, linear=2 / 3 * costs.linear)
    meta = BatchPlan.open(plan).meta
    slots = np.zeros(meta.num_steps * meta.packs_per_step)
    for rows in pq.ParquetFile(plan / PLAN_FILE).iter_batches(columns=["step", "slot", "length"]):
        step, slot, length = (rows[name].to_numpy().astype(np.int64) for name in ("step", "slot", "length"))
        np.add.at(slots, step * meta.packs_per_step + slot, costs.costs(length))
    np.save(out_dir / _COSTS_FILE, slots.reshape(meta.num_steps, meta.packs_per_step))
    return out_dir / _COSTS_FILE


def write_measurements(out_dir: Path, plan: Path, title: str) -> Counts:
    """Write what a finished training measured: a table, a page, and a cost profile for plans to come.

    Args:
        out_dir: Where the training wrote, and where metrics.parquet, report.html and, if slots were timed,
            cost_profile.jsonl go.
        plan: Folder of the batch plan that was trained on.
        title: What was trained, for the page.

    Returns:
        The run's figures, its headlines among them.
    """
    from longalign_core.batching.cost_profile import PROFILE_FILE
    from longalign_core.record_files import write_records
    from longalign_core.training.launch import read_metrics
    from longalign_core.training.metrics import StepMetrics, run_figures
    from longalign_core.training.report import training_page

    metrics = read_metrics(out_dir)
    write_records(out_dir / "metrics.parquet", metrics, StepMetrics)
    (out_dir / PAGE).write_text(training_page(metrics, title), encoding="utf-8")
    packs = list(_measured_packs(metrics, BatchPlan.open(plan)))
    if packs:
        lines = (
            orjson.dumps(pack, option=orjson.OPT_APPEND_NEWLINE) for pack in packs[:: -(-len(packs) // _MOST_PACKS)]
        )
        (out_dir / PROFILE_FILE).write_bytes(b"".join(lines))
    return {
        "steps": len(metrics),
        "tokens": sum(one.tokens for one in metrics),
        "sequences": sum(one.num_sequences for one in metrics),
        "first_loss": metrics[0].loss,
        "last_loss": metrics[-1].loss,
        **{name: float(f"{value:.6g}") for name, value in run_figures(metrics).items()},
    }


def _measured_packs(metrics: Sequence[StepMetrics], plan: BatchPlan) -> Iterator[dict[str, object]]:
    for one in metrics[_WARM_UP:]:
        for slot, seconds in zip(plan.slots(one.step - 1), one.slot_seconds, strict=False):
            if slot and seconds > 0:
                yield {"lengths": [placement.length for placement in slot], "seconds": seconds}
