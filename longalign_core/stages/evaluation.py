"""Stages `evaluate` (a checkpoint on one suite) and `scorecard` (every suite on one page)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import orjson

from longalign_core.config.base import Section, is_source
from longalign_core.config.evaluation import ScorecardConfig, SuiteRun
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.records import Answer, Verdict
from longalign_core.sources import local_path, weights_fingerprint
from longalign_core.stage import Counts, Inputs, stage

Located = TypeVar("Located", bound=Section)


@stage("evaluate", version=1)
def evaluate(config: SuiteRun, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Put a suite's questions to a checkpoint and have its answers scored.

    A killed run repeats no answered call: replies are in the response store, not in `out_dir`.
    """
    from longalign_core.evaluation.answers import candidate_name
    from longalign_core.evaluation.asking import RoleCalls
    from longalign_core.evaluation.statistics import estimate_mean, question_scores
    from longalign_core.evaluation.suite_run import Replies, run_suite
    from longalign_core.record_files import write_records
    from longalign_core.stages.model_calls import open_calls, open_ledger

    (checkpoint,) = inputs["checkpoint"]
    judge = None if config.judge is None else _located(config.judge, runtime)
    located = config.model_copy(update={"suite": _located(config.suite, runtime), "judge": judge})
    weights = None if config.judge is None else weights_fingerprint(config.judge.checkpoint, runtime)
    name = candidate_name(checkpoint)
    with ExitStack() as opened:
        ledger = opened.enter_context(open_ledger(runtime))

        def calls_of(role: str, model: ChatModel) -> RoleCalls:
            calls = opened.enter_context(open_calls("evaluate", role, model, runtime, ledger))
            return RoleCalls(calls.responses, calls.spending)

        candidate = ChatModel(model=name, checkpoint=str(checkpoint))
        replies = Replies(
            candidate=calls_of("candidate", candidate), judge=None if judge is None else calls_of("judge", judge)
        )
        result = run_suite(located, checkpoint, name, runtime, replies, weights)
    write_records(out_dir / "answers.parquet", result.answers, Answer)
    write_records(out_dir / "verdicts.parquet", result.verdicts, Verdict)
    _write(out_dir / "suite.json", orjson.dumps(result.description, option=orjson.OPT_INDENT_2))
    scale = result.suite.scale
    scores = list(question_scores(result.verdicts).values())
    estimate = estimate_mean(scores, minimum=scale.minimum, maximum=scale.maximum)
    counts: Counts = {
        "questions": len(result.answers),
        "answered": sum(answer.reply is not None for answer in result.answers),
        "unscored": estimate.num_unscored,
    }
    return counts if estimate.mean is None else {**counts, "mean_score": round(estimate.mean, 4)}


@stage("scorecard", version=1)
def scorecard(config: ScorecardConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Draw up the scorecard: for programs, for terminals, and as one self-contained page.

    A score below the gate is a result, not a failure of this stage: the counts say so.
    """
    from longalign_core.evaluation.page import as_html, as_markdown
    from longalign_core.evaluation.scorecard import draw_up

    card = draw_up(config, inputs)
    _write(out_dir / "scorecard.json", orjson.dumps(card.as_json(), option=orjson.OPT_INDENT_2))
    _write(out_dir / "scorecard.md", as_markdown(card).encode())
    _write(out_dir / "scorecard.html", as_html(card).encode())
    means = {f"mean_{one.name}": round(one.estimate.mean, 4) for one in card.suites if one.estimate.mean is not None}
    unscored = sum(one.estimate.num_unscored for one in card.suites)
    return {"gate": card.gate.outcome, "suites": len(card.suites), "unscored": unscored, **means}


def _located(section: Located, runtime: Runtime) -> Located:
    """The section with every source as the path where it lies on this machine."""
    fields = type(section).model_fields.items()
    sources = {name: getattr(section, name) for name, field in fields if is_source(field)}
    found = {name: str(local_path(source, runtime)) for name, source in sources.items() if source is not None}
    return section.model_copy(update=found)


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
