"""How many model calls a plan counts, and how long it takes them to be."""

from __future__ import annotations

import pytest

from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.quality import GroundingConfig
from longalign_core.config.task_types import FollowUpsTask, LongOutputTask, SeveralDocumentsTask
from longalign_core.plan_calls import grounding_calls, instruct_calls

GENERATOR = ChatModel(model="writer", max_tokens=300)
JUDGE = ChatModel(model="judge", max_tokens=200, context_tokens=8_000)


def test_instruct_calls_so_many_conversations_as_wanted_are_priced():
    config = InstructConfig(generator=ChatModel(model="m"), num_conversations=10_000)
    assert sum(one.num_calls for one in instruct_calls(config, 11_500, 11_500 * 30_000)) == pytest.approx(20_000)
    every = config.model_copy(update={"num_conversations": None})
    assert sum(one.num_calls for one in instruct_calls(every, 11_500, 11_500 * 30_000)) == pytest.approx(23_000)


def grounded(**changes: object) -> InstructConfig:
    values = {"generator": GENERATOR, "grounding": GroundingConfig(judge=JUDGE), **changes}
    return InstructConfig(**values)


def test_grounding_calls_each_answer_of_a_conversation_is_judged_once():
    kinds = (
        "general",
        FollowUpsTask(name="conversation", min_turns=3, max_turns=4, share=2),
        SeveralDocumentsTask(name="several"),
    )
    config = grounded(task_types=kinds, num_conversations=400)
    calls = grounding_calls(config, 1_000, 1_000 * 30_000)
    assert [one.num_calls for one in calls] == pytest.approx([100, 200 * 3.5, 100])
    assert [(one.reply_tokens, one.most_reply_tokens) for one in calls] == [(200, 200)] * 3
    assert grounding_calls(config.model_copy(update={"grounding": None}), 1_000, 30_000_000) == []


def test_grounding_calls_prompts_hold_passages_question_and_answer_and_fit_the_window():
    def own_tokens(num_tokens: int, **changes: object) -> int:
        config = grounded(task_types=("general",), grounding=GroundingConfig(judge=JUDGE, **changes))
        (calls,) = grounding_calls(config, 10, 10 * num_tokens)
        assert calls.shared_tokens == 0
        return calls.own_tokens

    # An English word is about six bytes with its space, a token about three.
    assert own_tokens(30_000, passages=8, passage_words=200) - own_tokens(30_000, passages=7, passage_words=200) == 400
    bare = own_tokens(30_000, passages=1, passage_words=20) - 40
    # 150 of question, 300 of answer, and the judge's task.
    assert 550 < bare < 1_000
    # A short document is shown whole.
    assert own_tokens(500, passages=8, passage_words=200) == bare + 500
    assert own_tokens(30_000, passages=100, passage_words=4_000) == 7_800


def test_grounding_calls_several_documents_are_shown_from_together():
    config = grounded(
        task_types=(SeveralDocumentsTask(name="several", num_documents=3), LongOutputTask(name="long", min_words=100))
    )
    several, one = grounding_calls(config, 10, 10 * 100)
    assert several.own_tokens - one.own_tokens == 200
