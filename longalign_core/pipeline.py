"""The whole pipeline, written once: dataset, training, evaluation, as one chain of stages.

It runs over any `Runner`: planned, carried out here, by Prefect, or only required to exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longalign_core.config import Recipe
from longalign_core.config.training import CheckpointConfig
from longalign_core.runner import PipelineEnd, Runner
from longalign_core.stage import Artifact
from longalign_core.stages.batching import batches
from longalign_core.stages.clean import clean
from longalign_core.stages.encoding import encode
from longalign_core.stages.evaluation import evaluate, scorecard
from longalign_core.stages.extension import extend
from longalign_core.stages.ingest import ingest
from longalign_core.stages.instruct import instruct
from longalign_core.stages.mixture import mixture
from longalign_core.stages.protect import protect
from longalign_core.stages.select import select
from longalign_core.stages.training import checkpoint, train

STAGES = tuple(
    stage.name
    for stage in (
        ingest, protect, clean, select, instruct, mixture, encode, batches, extend, train, checkpoint, evaluate,
        scorecard,
    )
)  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """What training needs, and what reports look back on.

    Attributes:
        history: What the training set was made from, by the names that reports know it by: `kept`,
            `documents`, `conversations`, as far as the recipe needs them.
    """

    history: dict[str, Any]
    training_set: Artifact
    tokens: Artifact
    plan: Artifact


@dataclass(frozen=True)
class Model:
    """A training run and its final checkpoint."""

    training: Artifact
    checkpoint: Artifact


def make_dataset(run: Runner, recipe: Recipe) -> Dataset:
    """Corpora to batch plan; what the suite has no use for is neither made nor paid for."""
    history = select_documents(run, recipe) if recipe.needs_documents else {}
    if recipe.mixture.takes_long:
        history["conversations"] = run(instruct, recipe.instruct, documents=history["documents"])
    # An input that is not there must not enter the address, not even as an empty one.
    long_ones: dict[str, Any] = {name: one for name, one in history.items() if name == "conversations"}
    training_set = run(mixture, recipe.mixture, **long_ones)
    tokens = run(encode, recipe.encoding, conversations=training_set)
    plan = run(batches, recipe.batching, tokens=tokens)
    return Dataset(history, training_set, tokens, plan)


def select_documents(run: Runner, recipe: Recipe) -> dict[str, Any]:
    """Corpora to the documents drawn: what was kept of them, and the documents."""
    corpora = run.map(ingest, {corpus.name: corpus for corpus in recipe.corpora})
    protected: dict[str, Any] = {}
    if recipe.cleaning.decontamination_words:
        protected["protected"] = run(protect, recipe.protected_texts())
    kept = run(clean, recipe.cleaning, documents=corpora, **protected)
    return {"kept": kept, "documents": run(select, recipe.selection, documents=corpora, kept=kept)}


def train_model(run: Runner, recipe: Recipe, data: Dataset) -> Model:
    """Batch plan to checkpoint."""
    base: dict[str, Any] = {}
    if recipe.extension.enabled:
        base["base"] = run(extend, recipe.extension_run(), documents=data.history["documents"])
    training = run(train, recipe.training, plan=data.plan, tokens=data.tokens, **base)
    final = run(checkpoint, CheckpointConfig(step="final"), label="final", train=training)
    return Model(training, final)


def evaluate_model(run: Runner, recipe: Recipe, data: Dataset, model: Model) -> Artifact:
    """Checkpoint to scorecard."""
    suites = {one.suite.name: one for one in recipe.evaluation.runs()}
    evaluations = run.map(evaluate, suites, checkpoint=model.checkpoint)
    return run(
        scorecard,
        recipe.evaluation.scorecard(recipe.name),
        evaluations=evaluations,
        training_set=data.training_set,
        tokens=data.tokens,
        plan=data.plan,
        train=model.training,
        **data.history,
    )


def evaluate_checkpoint(run: Runner, recipe: Recipe, model: Artifact) -> None:
    """Any checkpoint of the store to a scorecard by the recipe's suites; of how it was trained nothing is asked.

    Args:
        run: The runner.
        recipe: Only its evaluation counts.
        model: The checkpoint.
    """
    suites = {one.suite.name: one for one in recipe.evaluation.runs()}
    try:
        evaluations = run.map(evaluate, suites, checkpoint=model)
        run(scorecard, recipe.evaluation.scorecard(recipe.name), evaluations=evaluations)
    except PipelineEnd:
        return


def run_pipeline(run: Runner, recipe: Recipe) -> None:
    """Everything, or as far as the runner was told to go; the runner holds the artifacts."""
    try:
        data = make_dataset(run, recipe)
        model = train_model(run, recipe, data)
        evaluate_model(run, recipe, data, model)
    except PipelineEnd:
        return
