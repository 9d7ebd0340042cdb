"""A suite's questions put to the checkpoint under test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from longalign_core.chat_client import CallFailedError, ChatRequest
from longalign_core.config.evaluation import Candidate
from longalign_core.evaluation.asking import Asker, Outcome
from longalign_core.evaluation.suites import Question
from longalign_core.evaluation.window import FittedPrompt, PromptWindow
from longalign_core.records import Answer, Message


def candidate_name(checkpoint: Path) -> str:
    """Name of a checkpoint in requests, from what its folder holds.

    Two checkpoints never share a stored reply, and one checkpoint has one name wherever it lies.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        relative = file.relative_to(checkpoint)
        if any(part.startswith(".") for part in relative.parts):
            continue
        with file.open("rb") as content:
            digest.update(f"{relative.as_posix()}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return f"candidate-{digest.hexdigest()[:12]}"


def answer_questions(
    questions: Sequence[Question], model: str, candidate: Candidate, window: PromptWindow, asker: Asker
) -> list[Answer]:
    """Ask every question, its prompt fitted to the window, in the order given.

    A call that was given up leaves an answer without a reply, and why; the asker remembers those
    that another try may answer.
    """
    prompts = [window.fit(question.message) for question in questions]
    requests = [
        ChatRequest(
            model=model,
            messages=(Message(role="user", content=prompt.text),),
            temperature=candidate.temperature,
            top_p=1.0,
            max_tokens=candidate.max_tokens,
            purpose="answer",
            seed=0,
        )
        for prompt in prompts
    ]
    outcomes = asker.ask_all(requests, "ask the candidate")
    return [_answer(*parts) for parts in zip(questions, prompts, outcomes, strict=True)]


def _answer(question: Question, prompt: FittedPrompt, outcome: Outcome) -> Answer:
    attributes = {**question.attributes, "query": question.query, "reference": question.reference}
    unanswered = Answer(
        question_id=question.id, reply=None, num_cut_tokens=prompt.num_cut_tokens, attributes=attributes
    )
    if isinstance(outcome, CallFailedError):
        return replace(unanswered, error=f"{outcome.reason}: {outcome.detail}")
    if outcome.finish_reason == "content_filter" and not outcome.text:
        return replace(unanswered, error="the endpoint filtered the reply")
    return replace(
        unanswered,
        reply=outcome.text,
        num_prompt_tokens=outcome.prompt_tokens,
        num_reply_tokens=outcome.reply_tokens,
        attributes={**attributes, "finish_reason": outcome.finish_reason},
    )
