"""A token store to a batch plan for every epoch, with what it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from longalign_core.config.batching import BatchingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.progress import track
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.costs import cost_model_for
from longalign_core.token_store import TokenStore

if TYPE_CHECKING:
    from longalign_core.batch_plan import EpochOrder
    from longalign_core.batching.figures import PlanFigures

PAGE = "report.html"


@stage("batches", version=2)
def batches(config: BatchingConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """A token store to a batch plan for every epoch, with what it is worth.

    `report.json` has the plan's figures, and under `compared` its first epoch beside other strategies;
    `report.html` shows them.
    """
    from longalign_core.batch_plan import BatchPlan
    from longalign_core.batching.comparison import compare_with_baselines
    from longalign_core.batching.page import comparison_page
    from longalign_core.batching.report import PlanReport
    from longalign_core.batching.strategies import Batching, order_epochs
    from longalign_core.batching.tables import REPORT

    (tokens,) = inputs["tokens"]
    store = TokenStore.open(tokens)
    batching = Batching(
        strategy=config.strategy,
        capacity=config.capacity,
        packs_per_step=config.packs_per_step,
        alike=config.alike or config.packs_per_step,
        seed=config.seed,
        cost_model=cost_model_for(config, runtime),
    )
    report = PlanReport(
        lengths=store.lengths,
        targets=store.targets,
        capacity=config.capacity,
        packs_per_step=config.packs_per_step,
        alpha=config.alpha,
        normaliser=config.normaliser,
        cost_model=batching.cost_model,
    )
    first_epochs: list[tuple[EpochOrder, PlanFigures]] = []

    def reported() -> Iterator[EpochOrder]:
        with track("batches", total=config.epochs, unit="epochs") as step:
            for order in order_epochs(store.lengths, batching, config.epochs):
                report.add(order)
                if not first_epochs:
                    first_epochs.append((order, report.figures()))
                yield order
                step(1)

    BatchPlan.write(
        out_dir,
        strategy=config.strategy,
        capacity=config.capacity,
        packs_per_step=config.packs_per_step,
        alike=batching.alike,
        alpha=config.alpha,
        normaliser=config.normaliser,
        seed=config.seed,
        lengths=store.lengths,
        targets=store.targets,
        epochs=reported(),
    )
    figures = report.figures()
    ((first_epoch, first_figures),) = first_epochs
    compared = compare_with_baselines(
        first_epoch,
        store.lengths,
        store.targets,
        batching,
        alpha=config.alpha,
        source="the token store",
        figures=first_figures,
    )
    told = {**asdict(figures), "compared": compared.rows}
    (out_dir / REPORT).write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    (out_dir / PAGE).write_text(comparison_page(compared, own=config.strategy), encoding="utf-8")
    return {
        "steps": figures.steps,
        "packs": figures.packs,
        "sequences": store.num_sequences,
        "epochs": config.epochs,
        "empty_slots": figures.empty_slots,
        "utilisation": round(figures.utilisation, 6),
        "idle": round(figures.idle[str(batching.alike)], 6),
        "ess": round(figures.ess, 6),
    }
