"""The stage `extend`: a base model with a longer context, before it is fine-tuned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import ExtensionConfig, ExtensionRun, TrainingConfig
from longalign_core.errors import DataError, InputError
from longalign_core.progress import track
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Document, Reject
from longalign_core.stage import Counts, Inputs, current_address, current_partial, record_setting, stage
from longalign_core.stages.measurements import write_measurements, write_slot_costs
from longalign_core.stages.model_folders import model_path
from longalign_core.token_store import TokenStore, TokenStoreWriter

if TYPE_CHECKING:
    from longalign_core.batching.cost import CostModel

log = logging.getLogger(__name__)

_TOKENS, _PLAN, _BASE = ".tokens", ".plan", ".base"


@stage("extend", version=2)
def extend(config: ExtensionRun, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Raise the base model's RoPE base, or scale its positions by YaRN, and go on pre-training it on long documents.

    Product: a model folder, with deepspeed.json, rejects.parquet and what was measured beside it, as in `train`.
    Training ends at `num_tokens`, at most one piece beyond it. What a killed run left is used: its
    token store, its plan and its resume points.
    """
    from longalign_core.training.base_model import check_base_model
    from longalign_core.training.copies import fetch_newer
    from longalign_core.training.extended_base import write_extended_base
    from longalign_core.training.preparation import carry_out, check_machines, prepare_job

    (documents,) = inputs["documents"]
    extension = config.extension
    base_model = model_path(config.base_model, runtime)
    check_machines(runtime, extension.packs_per_step, "extension")
    check_base_model(base_model)
    write_extended_base(base_model, out_dir / _BASE, extension, trust_remote_code=config.trust_remote_code)
    _write_tokens(documents, base_model, config, out_dir)
    _write_plan(out_dir, extension, base_model)
    job = prepare_job(
        TrainingConfig(
            base_model=str(out_dir / _BASE),
            precision=config.precision,
            optimizer=extension.optimizer,
            trust_remote_code=config.trust_remote_code,
            seed=extension.seed,
        ),
        runtime,
        name=current_address(),
        plan=out_dir / _PLAN,
        slot_costs=write_slot_costs(out_dir / _PLAN, base_model, out_dir),
        tokens=out_dir / _TOKENS,
        base_model=out_dir / _BASE,
        out_dir=out_dir,
    )
    record_setting("deepspeed", job.deepspeed)
    trained = job.model_folder(job.keep_steps[-1])
    if not trained.is_dir():
        partial = current_partial()
        if partial is not None:
            fetch_newer(partial, out_dir)
        carry_out(
            job,
            runtime,
            label="extend",
            on_model=lambda step: log.info("extended after step %d", step),
            partial=partial,
        )
    # The folder stays, even empty: it is the mark that training is over, should the moving be cut short.
    for file in trained.iterdir():
        file.replace(out_dir / file.name)
    counts = write_measurements(out_dir, out_dir / _PLAN, "extend")
    store = TokenStore.open(out_dir / _TOKENS)
    return {
        **counts,
        "epochs": round(int(counts["tokens"]) / int(store.lengths.sum()), 4),
        "pieces": store.num_sequences,
        "piece_tokens": int(store.lengths.sum()),
        "rejects": sum(1 for _ in read_records(out_dir / "rejects.parquet", Reject)),
    }


def _write_tokens(documents: Path, base_model: Path, config: ExtensionRun, out_dir: Path) -> None:
    """Cut the documents into pieces in a token store, unless an earlier start made it whole.

    Raises:
        DataError: No document has a token to predict.
        InputError: The base model's tokenizer cannot be loaded.
    """
    from longalign_core.training.plain_text import SHORTEST_PIECE, PlainText, cut_pieces

    if _is_whole(TokenStore.open, out_dir / _TOKENS):
        return
    text = PlainText(base_model, trust_remote_code=config.trust_remote_code)
    rejects: list[Reject] = []
    num_pieces = 0
    with (
        track("extend: tokens", total=None, unit="documents") as step,
        TokenStoreWriter(out_dir / _TOKENS, text.vocabulary) as writer,
    ):
        for document, token_ids in text.encode(read_records(documents / "documents.parquet", Document)):
            for piece in cut_pieces(token_ids, config.extension.context_tokens):
                if len(piece) < SHORTEST_PIECE:
                    rejects.append(_short_piece(document))
                    continue
                writer.append(piece, np.arange(len(piece)) > 0)
                num_pieces += 1
            step(1)
        if not num_pieces:
            raise DataError("no document has a token to train on; check selection, or set extension.enabled to false")
        write_records(out_dir / "rejects.parquet", rejects, Reject)


def _short_piece(document: Document) -> Reject:
    return Reject(
        id=document.id,
        source=document.source,
        stage="extend",
        reason="lone token",
        detail="the last piece has one token, with nothing before it to predict it from; the others are kept",
    )


def _write_plan(out_dir: Path, extension: ExtensionConfig, base_model: Path) -> None:
    """Plan as many steps as reach `num_tokens`, unless an earlier start made the plan whole."""
    from longalign_core.batch_plan import BatchPlan
    from longalign_core.batching.strategies import Batching
    from longalign_core.batching.token_budget import order_tokens

    if _is_whole(BatchPlan.open, out_dir / _PLAN):
        return
    store = TokenStore.open(out_dir / _TOKENS)
    batching = Batching(
        strategy="balanced",
        capacity=extension.context_tokens,
        packs_per_step=extension.packs_per_step,
        alike=extension.packs_per_step,
        seed=extension.seed,
        cost_model=_costs_of(base_model),
    )
    BatchPlan.write(
        out_dir / _PLAN,
        strategy=batching.strategy,
        capacity=batching.capacity,
        packs_per_step=batching.packs_per_step,
        alike=batching.alike,
        # Every target token of a step weighs the same, as in pre-training.
        alpha=0.0,
        normaliser="step",
        seed=batching.seed,
        lengths=store.lengths,
        targets=store.targets,
        epochs=order_tokens(store.lengths, batching, extension.num_tokens),
    )


def _costs_of(base_model: Path) -> CostModel:
    """The base model's costs. Only which packs stand side by side depends on them, so others do at a pinch."""
    from longalign_core.batching.cost import CostModel
    from longalign_core.batching.model_file import cost_model_of

    try:
        return cost_model_of(base_model)
    except InputError as error:
        log.warning("packs are compared by the costs of Llama-2-7B: %s", error)
        return CostModel()


def _is_whole(open_folder: Callable[[Path], object], folder: Path) -> bool:
    """Whether what an earlier start wrote can be opened."""
    try:
        open_folder(folder)
    except DataError:
        return False
    return True
