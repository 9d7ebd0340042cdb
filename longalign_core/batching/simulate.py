"""What each strategy would make of given lengths: `longalign batches`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

import numpy as np
import orjson
from numpy.typing import NDArray

from longalign_core.batch_plan import PLAN_FILE, BatchPlan
from longalign_core.batching.cost import CostModel
from longalign_core.batching.report import PlanReport
from longalign_core.batching.strategies import STRATEGIES, Batching, order_epochs
from longalign_core.config.batching import MOST_TOKENS
from longalign_core.errors import InputError
from longalign_core.progress import track


class SimulatedPlan(TypedDict):
    """One epoch of one strategy, with the figures of `PlanFigures`.

    `idle` is that of the number of ranks asked for, `sequences_per_step` the mean.
    """

    strategy: str
    packs: int
    utilisation: float
    idle: float
    ess: float
    steps: int
    sequences_per_step: float


def simulate_batches(
    lengths: Path,
    *,
    capacity: int,
    packs_per_step: int,
    ranks: int,
    strategy: str | None = None,
    alike: int | None = None,
    model: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> list[SimulatedPlan]:
    """Plan one epoch over a file of lengths, with one strategy or with each of them.

    Weights are those of alpha 1 and the `step` normaliser, for which target tokens need not be known.

    Args:
        lengths: `.npy` file of a one-dimensional integer array.
        capacity: Tokens a pack holds.
        packs_per_step: Slots of one optimizer step, for every strategy.
        ranks: Data-parallel ranks; divides packs_per_step.
        strategy: One of `STRATEGIES`; None for all.
        alike: Consecutive slots that cost alike; None for packs_per_step.
        model: `config.json` of a Llama-like model, or its folder; None for Llama-2-7B.
        out: Parquet file to write the plan to; needs a strategy. As only lengths are known, its
            column `targets` says that every token is one.
        seed: Of the order.

    Raises:
        InputError: An option is wrong, or a file is not what it should be.
        DataError: The lengths cannot be planned with.
    """
    tokens = _read_lengths(lengths)
    alike = packs_per_step if alike is None else alike
    _check_options(capacity, packs_per_step, ranks, alike, strategy, out)
    cost_model = CostModel() if model is None else CostModel.from_model_config(_read_config(model))
    rows = []
    names = [strategy] if strategy else list(STRATEGIES)
    with track("batches", total=len(names), unit="strategies") as step:
        for name in names:
            batching = Batching(
                strategy=name,
                capacity=capacity,
                packs_per_step=packs_per_step,
                alike=alike,
                seed=seed,
                cost_model=cost_model,
            )
            rows.append(_simulate(tokens, batching, ranks, out))
            step(1, name)
    return rows


def _simulate(lengths: NDArray[np.int64], batching: Batching, ranks: int, out: Path | None) -> SimulatedPlan:
    (order,) = order_epochs(lengths, batching, epochs=1)
    report = PlanReport(
        lengths=lengths,
        targets=lengths,
        capacity=batching.capacity,
        packs_per_step=batching.packs_per_step,
        alpha=1.0,
        normaliser="step",
        cost_model=batching.cost_model,
    )
    report.add(order)
    figures = report.figures()
    if out is not None:
        with TemporaryDirectory(dir=out.parent, prefix=".batches-") as folder:
            BatchPlan.write(
                Path(folder),
                strategy=batching.strategy,
                capacity=batching.capacity,
                packs_per_step=batching.packs_per_step,
                alike=batching.alike,
                alpha=1.0,
                normaliser="step",
                seed=batching.seed,
                lengths=lengths,
                targets=lengths,
                epochs=[order],
            )
            (Path(folder) / PLAN_FILE).replace(out)
    return SimulatedPlan(
        strategy=batching.strategy,
        packs=figures.packs,
        utilisation=figures.utilisation,
        idle=figures.idle[str(ranks)],
        ess=figures.ess,
        steps=figures.steps,
        sequences_per_step=figures.sequences_per_step.mean,
    )


def _check_options(
    capacity: int, packs_per_step: int, ranks: int, alike: int, strategy: str | None, out: Path | None
) -> None:
    for option, value in (
        ("--capacity", capacity),
        ("--packs-per-step", packs_per_step),
        ("--ranks", ranks),
        ("--alike", alike),
    ):
        if value < 1:
            raise InputError(f"{option} is {value}; give a number from 1 up")
    if capacity > MOST_TOKENS:
        raise InputError(f"--capacity is {capacity}; give at most {MOST_TOKENS}")
    for option, value in (("--ranks", ranks), ("--alike", alike)):
        if packs_per_step % value:
            raise InputError(f"{option} {value} does not divide --packs-per-step {packs_per_step}; choose a divisor")
    if strategy is not None and strategy not in STRATEGIES:
        raise InputError(f"--strategy {strategy!r} is unknown; choose one of {', '.join(STRATEGIES)}")
    if out is not None and strategy is None:
        raise InputError("--out writes one plan; say which with --strategy")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"the folder of --out {out} does not exist; make it first")


def _read_lengths(path: Path) -> NDArray[np.int64]:
    try:
        lengths = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path} cannot be read; give a .npy file of sequence lengths") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npy file; save the lengths with numpy.save") from error
    if not isinstance(lengths, np.ndarray) or lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise InputError(f"{path} is no one-dimensional array of whole numbers; save one length a sequence")
    return lengths.astype(np.int64)


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    try:
        values = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{file} cannot be read as JSON; give --model the config.json of a model") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} is no model config; give --model the config.json of a model")
    return values
