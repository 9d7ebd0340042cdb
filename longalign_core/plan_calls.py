"""Which model calls a planned stage will make, as the recipe and its files tell it."""

from __future__ import annotations

from pathlib import Path

from longalign_core.config.evaluation import LongBenchChatConfig, NeedleConfig
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.task_types import TaskType
from longalign_core.run_costs import Calls

# Assumptions, not facts: what a call adds to its document, and how long a reply is. The plan states them, and the
# price at the longest reply beside.
ASSUMED_OWN_TOKENS = 150
ASSUMED_REPLY_TOKENS = 400
_BYTES_PER_TOKEN = 3
# An English word with its space, or the two Chinese characters that count as one.
_BYTES_PER_WORD = 6
# The questions, then the answer.
_CALLS_PER_ANSWER = 2


def instruct_calls(config: InstructConfig, num_documents: int, num_tokens: int) -> list[Calls]:
    """The generator's calls, counts by type following the shares.

    With `num_conversations` so many are asked for; what takes the place of rejected ones comes on top.

    Args:
        config: Its task types say how many calls a conversation and how many documents a conversation takes.
        num_documents: Drawn.
        num_tokens: Of them together.
    """
    mean = num_tokens // max(num_documents, 1)
    return [
        Calls(
            num_groups=num_conversations,
            calls_per_group=task.calls_per_conversation,
            shared_tokens=mean * task.num_documents,
            own_tokens=ASSUMED_OWN_TOKENS,
            reply_tokens=min(ASSUMED_REPLY_TOKENS, config.generator.max_tokens),
            most_reply_tokens=config.generator.max_tokens,
        )
        for task, num_conversations in _conversations(config, num_documents)
    ]


def grounding_calls(config: InstructConfig, num_documents: int, num_tokens: int) -> list[Calls]:
    """The calls of the judge of `config.grounding`, one for each answer of the conversations asked for.

    Answers that the judge rejects, and verdicts that are asked for again, come on top. A prompt holds the passages, or
    the whole documents where these are shorter, a question and an answer as long as the generator's are assumed to be,
    and the judge's task; no more than the judge's window.

    Args:
        config: Its task types say how many turns a conversation has, the mean where that is drawn.
        num_documents: Drawn.
        num_tokens: Of them together.

    Returns:
        Counts by task type; empty without grounding.
    """
    grounding = config.grounding
    if grounding is None:
        return []
    from longalign_core.instruct.grounding_prompts import judge_prompt

    judge, mean = grounding.judge, num_tokens // max(num_documents, 1)
    passages = grounding.passages * grounding.passage_words * _BYTES_PER_WORD // _BYTES_PER_TOKEN
    task_tokens = len(judge_prompt("", "", (), "en", grounding).encode()) // _BYTES_PER_TOKEN
    around = task_tokens + ASSUMED_OWN_TOKENS + min(ASSUMED_REPLY_TOKENS, config.generator.max_tokens)
    return [
        Calls(
            num_groups=num_conversations * task.calls_per_conversation / _CALLS_PER_ANSWER,
            calls_per_group=1,
            shared_tokens=0,
            own_tokens=min(around + min(passages, mean * task.num_documents), judge.context_tokens - judge.max_tokens),
            reply_tokens=min(ASSUMED_REPLY_TOKENS, judge.max_tokens),
            most_reply_tokens=judge.max_tokens,
        )
        for task, num_conversations in _conversations(config, num_documents)
    ]


def _conversations(config: InstructConfig, num_documents: int) -> list[tuple[TaskType, float]]:
    """How many conversations of each task type are asked for."""
    whole = sum(task.share for task in config.tasks)
    num_asked = num_documents if config.num_conversations is None else min(num_documents, config.num_conversations)
    return [(task, num_asked * task.share / whole) for task in config.tasks]


def judge_calls(
    suite: LongBenchChatConfig | NeedleConfig, judge: ChatModel | None, answer_tokens: int
) -> list[Calls] | None:
    """The judge's calls of a suite; None when its files are not here."""
    if isinstance(suite, NeedleConfig):
        return []
    assert judge is not None, "a recipe with a judged suite and no judge is refused"
    if not all(Path(file).is_file() for file in (suite.questions, suite.few_shots, suite.judge_prompt)):
        return None
    from longalign_core.evaluation.longbench_chat import LongBenchChat, read_questions

    scoring = LongBenchChat(suite).scoring
    questions = read_questions(Path(suite.questions))
    num_bytes = sum(len(scoring.prompt(question, "", 0).encode()) for question in questions)
    return [
        Calls(
            num_groups=len(questions) * suite.repeats,
            calls_per_group=1,
            shared_tokens=0,
            own_tokens=num_bytes // len(questions) // _BYTES_PER_TOKEN + min(ASSUMED_REPLY_TOKENS, answer_tokens),
            reply_tokens=min(ASSUMED_REPLY_TOKENS, judge.max_tokens),
            most_reply_tokens=judge.max_tokens,
        )
    ]
