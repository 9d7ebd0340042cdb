"""What each strategy would make of given lengths: `longalign batches`."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from longalign_core.batch_plan import PLAN_FILE, BatchPlan, EpochOrder
from longalign_core.batching.comparison import Comparison, Hardware, StrategyRow, describe_epoch, slots_per_step
from longalign_core.batching.cost import CostModel
from longalign_core.batching.cost_profile import doubts, read_profile
from longalign_core.batching.lengths_file import read_lengths
from longalign_core.batching.model_file import cost_model_of
from longalign_core.batching.strategies import STRATEGIES, Batching, order_epochs
from longalign_core.config.batching import MOST_TOKENS
from longalign_core.errors import InputError
from longalign_core.progress import track

log = logging.getLogger(__name__)
PICTURES = (".png", ".svg", ".html")


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
    column: str | None = None,
    gpus: int | None = None,
    tflops: float | None = None,
    epochs: int = 1,
    picture: Path | None = None,
    profile: Path | None = None,
) -> list[StrategyRow]:
    """Plan one epoch over a file of lengths, with one strategy or with each of them.

    Weights are those of alpha 1, for which target tokens need not be known.

    Args:
        lengths: File of lengths, as `read_lengths` reads it.
        capacity: Tokens a pack holds.
        packs_per_step: Slots of one optimizer step of a strategy that packs; the others' step has
            about as many sequences, see `slots_per_step`.
        ranks: Data-parallel ranks; divides packs_per_step.
        strategy: One of `STRATEGIES`; None for all.
        alike: Consecutive slots that cost alike; None for packs_per_step.
        model: `config.json` of a Llama-like model, or its folder; None for Llama-2-7B.
        out: Parquet file to write the plan to; needs a strategy. As only lengths are known, its
            column `targets` says that every token is one.
        seed: Of the order.
        column: Of the lengths in a parquet or CSV file; None for `length`.
        gpus: GPUs in all, a multiple of the ranks; None for one a rank.
        tflops: Sustained speed of one GPU in 10^12 FLOPs a second; None predicts no hours.
        epochs: Passes over the data that hours are predicted for.
        picture: File for the picture of the first packs and of the ranks' time: one of `PICTURES`.
        profile: Packs measured on the machines that will train, as `read_profile` reads them: costs are
            then seconds, and hours need no speed. None for FLOPs.

    Raises:
        InputError: An option is wrong, a file is not what it should be, or one cannot be written.
        DataError: The lengths cannot be planned with.
    """
    alike = packs_per_step if alike is None else alike
    _check_counts(capacity, packs_per_step, ranks, alike, epochs)
    hardware = _hardware(gpus, tflops, epochs, ranks, profile)
    _check_files(strategy, out, picture)
    tokens = read_lengths(lengths, capacity, column)
    cost_model = CostModel() if model is None else cost_model_of(model)
    if profile is not None:
        measured = read_profile(profile)
        cost_model = cost_model.calibrated(measured)
        for doubt in doubts(measured, cost_model.misfit, capacity):
            log.warning("%s: %s", profile, doubt)
    rows, openings = [], []
    names = [strategy] if strategy else list(STRATEGIES)
    with track("batches", total=len(names), unit="strategies") as step:
        for name in names:
            step(0, name)
            batching = Batching(
                strategy=name,
                capacity=capacity,
                packs_per_step=slots_per_step(name, tokens, capacity, packs_per_step),
                alike=alike,
                seed=seed,
                cost_model=cost_model,
            )
            (order,) = order_epochs(tokens, batching, epochs=1)
            row, opening = describe_epoch(order, tokens, batching, ranks, hardware=hardware)
            rows.append(row)
            openings.append(opening)
            if out is not None:
                try:
                    _write_plan(out, tokens, batching, order)
                except OSError as error:
                    raise _unwritable("--out", out, error) from error
            step(1)
    if picture is not None:
        # matplotlib takes half a second to load.
        from longalign_core.batching.page import write_picture

        try:
            write_picture(picture, Comparison(rows=rows, openings=openings, source=lengths.name))
        except OSError as error:
            raise _unwritable("--picture", picture, error) from error
    return rows


def _write_plan(out: Path, lengths: NDArray[np.integer], batching: Batching, order: EpochOrder) -> None:
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


def _check_counts(capacity: int, packs_per_step: int, ranks: int, alike: int, epochs: int) -> None:
    for option, value in (
        ("--capacity", capacity),
        ("--packs-per-step", packs_per_step),
        ("--ranks", ranks),
        ("--alike", alike),
        ("--epochs", epochs),
    ):
        if value < 1:
            raise InputError(f"{option} is {value}; give a number from 1 up")
    if capacity > MOST_TOKENS:
        raise InputError(f"--capacity is {capacity}; give at most {MOST_TOKENS}")
    for option, value in (("--ranks", ranks), ("--alike", alike)):
        if packs_per_step % value:
            raise InputError(f"{option} {value} does not divide --packs-per-step {packs_per_step}; choose a divisor")


def _hardware(gpus: int | None, tflops: float | None, epochs: int, ranks: int, profile: Path | None) -> Hardware | None:
    if profile is not None:
        if gpus is not None or tflops is not None:
            raise InputError("--profile has the seconds of its own machines; leave out --gpus and --tflops")
        return Hardware(epochs=epochs)
    if gpus is not None and (gpus < 1 or gpus % ranks):
        raise InputError(f"--gpus {gpus} is no multiple of --ranks {ranks}; each rank has as many GPUs as the others")
    if tflops is None:
        if gpus is not None or epochs != 1:
            raise InputError(
                "--gpus and --epochs predict hours, which needs the speed of one GPU; give it with --tflops, "
                "or measured packs with --profile"
            )
        return None
    if not 0 < tflops < float("inf"):
        raise InputError(f"--tflops is {tflops}; give the TFLOP/s that one GPU sustains, a number over 0")
    return Hardware(gpus=gpus or ranks, tflops=tflops, epochs=epochs)


def _check_files(strategy: str | None, out: Path | None, picture: Path | None) -> None:
    if strategy is not None and strategy not in STRATEGIES:
        raise InputError(f"--strategy {strategy!r} is unknown; choose one of {', '.join(STRATEGIES)}")
    if out is not None and strategy is None:
        raise InputError("--out writes one plan; say which with --strategy")
    if out is not None and out.suffix.lower() != ".parquet":
        raise InputError(f"--out {out} is no .parquet, which plans are written as; choose this ending")
    if picture is not None and picture.suffix.lower() not in PICTURES:
        raise InputError(f"--picture {picture} is none of {', '.join(PICTURES)}; choose one of these endings")
    for option, file in (("--out", out), ("--picture", picture)):
        if file is not None and not file.parent.is_dir():
            raise InputError(f"the folder of {option} {file} does not exist; make it first")


def _unwritable(option: str, file: Path, error: OSError) -> InputError:
    return InputError(f"{option} {file} cannot be written ({error.strerror or error}); give another place")
