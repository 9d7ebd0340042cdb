"""Small made-up inputs of the evaluation, for its tests."""

from __future__ import annotations

import json
from pathlib import Path

from longalign_core.config.evaluation import Candidate, LongBenchChatConfig, NeedleConfig, SuiteRun
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime

JUDGE_TEMPLATE = (
    'Rate strictly in the format "[[rating]]", e.g. "[[5]]".\n\n[Question]\n{}\n\n[Reference answer begins]\n{}\n'
    "[Reference answer ends]\n\n"
    + "[Assistant's answer begins]\n{}\n[Assistant's answer ends]\n\nRating: [[{}]]\n\n" * 3
    + "[Assistant's answer begins]\n{}\n[Assistant's answer ends]\n\nRating: "
)
NEEDLE = "The best thing to do in San Francisco is eat a sandwich in Dolores Park."


def longbench_chat_config(folder: Path, *, num_questions: int = 3, **settings) -> LongBenchChatConfig:
    """Questions about short documents; the document of question i is longer than that of i - 1."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, shots = [], []
    for idx in range(1, num_questions + 1):
        query = f"What happened in year {idx}?"
        document = "\n".join(f"In year {year} of reign {idx} it rained." for year in range(10 * idx))
        rows.append({"idx": idx, "prompt": f"{document}\n\n{query}", "query": query, "answer": f"Rain {idx}."})
        shots.append(
            [{"answer": f"shot {idx} {name}", "score": score} for name, score in (("a", 9), ("b", 5), ("c", 1))]
        )
    (folder / "questions.json").write_text(json.dumps(rows))
    (folder / "few_shots.json").write_text(json.dumps(shots))
    (folder / "judge.txt").write_text(JUDGE_TEMPLATE)
    return LongBenchChatConfig(
        questions=str(folder / "questions.json"),
        few_shots=str(folder / "few_shots.json"),
        judge_prompt=str(folder / "judge.txt"),
        **settings,
    )


def needle_config(
    folder: Path, *, lengths=(200, 400), depths=(0.0, 0.5, 1.0), haystack: str | None = None
) -> NeedleConfig:
    """A grid over a made-up haystack, or the one named."""
    if haystack is None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in "ba":
            sentences = [f"Sentence {number} of text {name} says little." for number in range(40)]
            (folder / f"{name}.txt").write_text(" ".join(sentences))
    return NeedleConfig(
        haystack=haystack or str(folder),
        needle=NEEDLE,
        question="What is the best thing to do in San Francisco?",
        expected="eat a sandwich in Dolores Park",
        lengths=lengths,
        depths=depths,
    )


def suite_run(suite, *, max_tokens: int = 20, context_tokens: int = 4096) -> SuiteRun:
    """A suite with a candidate and, where it needs one, a judge."""
    judge = ChatModel(model="gpt-judge", temperature=0.0, max_tokens=200)
    return SuiteRun(
        suite=suite,
        candidate=Candidate(max_tokens=max_tokens, context_tokens=context_tokens),
        judge=judge if suite.kind == "longbench_chat" else None,
    )


def runtime(folder: Path, **endpoints: str) -> Runtime:
    """A runtime whose scratch and store lie in `folder`, with endpoints by role."""
    places = {"scratch": folder / "scratch", "store": str(folder / "store")}
    return Runtime(**places, endpoints=endpoints, max_in_flight=4, max_retries=0)
