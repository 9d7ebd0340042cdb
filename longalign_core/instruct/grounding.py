"""Whether a document supports the answers about it: a judge that reads passages, not the document.

After the fact-level grounding of LongReward (Zhang et al. 2024, arXiv 2410.21252), where statements are
judged against retrieved chunks; here in one call an answer, with the counting left to the judge.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest
from longalign_core.config.quality import GroundingConfig
from longalign_core.instruct.evidence import best_passages, with_evidence
from longalign_core.instruct.evidence import evidence_positions as evidence_positions
from longalign_core.instruct.grounding_prompts import judge_prompt, parse_support
from longalign_core.records import Conversation, Message, Reject

UNSUPPORTED = "unsupported answer"
UNSCORED = "grounding unscored"
PURPOSE = "grounding"
_STAGE = "instruct"
_CUT_SHORT = frozenset({"length", "max_tokens"})
_TRIES = 2
# Rather too many tokens than too few, as for the generator's prompts; and room for a chat template.
_BYTES_PER_TOKEN = 3
_TEMPLATE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class _Support:
    """What the judge said of one answer: a share from 0 to 1, or why there is none."""

    share: float | None
    unscored: str = ""


async def check_grounding(
    conversation: Conversation,
    texts: Sequence[str],
    config: GroundingConfig,
    ask_judge: Callable[[ChatRequest], Awaitable[ChatReply]],
) -> Conversation | Reject:
    """Have each answer of a conversation judged by the passages nearest to it.

    Args:
        conversation: Its first turn holds the documents, its user turns the questions.
        texts: The documents it is about.
        config: Judge, passages, and what counts as enough.
        ask_judge: Sends a request to the judge; an unread verdict is asked for again with `repeat`.

    Returns:
        The conversation with the positions of its evidence, or a Reject: "unsupported answer" at the
        first answer below the floor, or "grounding unscored" where the recipe rejects that.

    Raises:
        CallFailedError: From `ask_judge`, a call given up for a reason that passes.
    """
    turns = list(_turns(conversation, texts))
    for number, (question, answer) in enumerate(turns, 1):
        support = await _judged(conversation, question, answer, texts, config, ask_judge)
        name = f"answer {number} of {len(turns)}"
        floor = config.min_supported if config.verdict == "claims" else 1.0
        if support.share is None:
            if config.unscored == "reject":
                return _reject(conversation, UNSCORED, f"{name}: {support.unscored}")
        elif support.share < floor:
            found = f"{support.share:.0%} of its claims" if config.verdict == "claims" else "it is not"
            return _reject(conversation, UNSUPPORTED, f"{name}: {found} supported, where {floor:.0%} are asked for")
    return with_evidence(conversation, texts)


async def _judged(
    conversation: Conversation,
    question: str,
    answer: str,
    texts: Sequence[str],
    config: GroundingConfig,
    ask_judge: Callable[[ChatRequest], Awaitable[ChatReply]],
) -> _Support:
    prompt = _fitting_prompt(question, answer, texts, conversation.language, config)
    if prompt is None:
        return _Support(None, "question, answer and a passage do not fit the judge's window")
    judge, why = config.judge, ""
    for repeat in range(_TRIES):
        request = ChatRequest(
            model=judge.model,
            messages=(Message(role="user", content=prompt),),
            temperature=judge.temperature,
            top_p=judge.top_p,
            max_tokens=judge.max_tokens,
            purpose=PURPOSE,
            task_type=conversation.task_type,
            corpus=conversation.source,
            repeat=repeat,
        )
        try:
            reply = await ask_judge(request)
        except CallFailedError as error:
            if error.passing:
                raise
            return _Support(None, f"{error.reason}: {error.detail}")
        # A reply that was cut short has not come to its last verdict.
        share = None if reply.finish_reason in _CUT_SHORT else parse_support(reply.text, config)
        if share is not None:
            return _Support(share)
        why = f"no verdict in {len(reply.text)} characters, finish reason {reply.finish_reason!r}, asked {_TRIES} times"
    return _Support(None, why)


def _fitting_prompt(
    question: str, answer: str, texts: Sequence[str], language: str, config: GroundingConfig
) -> str | None:
    """The judge's prompt with as many of the best passages as its window holds; None when not even one fits."""
    found = [
        (passage.score, place, passage.start, text[passage.start : passage.end])
        for place, text in enumerate(texts)
        for passage in best_passages(
            text, f"{question}\n{answer}", limit=config.passages, passage_words=config.passage_words
        )
    ]
    found = sorted(found, key=lambda one: (-one[0], one[1], one[2]))[: config.passages]
    room = config.judge.context_tokens - config.judge.max_tokens - _TEMPLATE_TOKENS
    for number in range(len(found), 0, -1):
        passages = [text for _, _, _, text in sorted(found[:number], key=lambda one: one[1:3])]
        prompt = judge_prompt(question, answer, passages, language, config)
        if -(-len(prompt.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN) <= room:
            return prompt
    if found:
        return None
    return judge_prompt(question, answer, (), language, config)


def _turns(conversation: Conversation, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each question, without the documents, with its answer."""
    question = ""
    for message in conversation.messages:
        if message.role == "user":
            question = message.content
            for text in texts:
                # What stands before a document, such as its heading, is no question.
                before, found, behind = question.partition(text)
                question = behind if found else before
            question = question.strip()
        elif message.role == "assistant":
            yield question, message.content


def _reject(conversation: Conversation, reason: str, detail: str) -> Reject:
    return Reject(id=conversation.id, source=conversation.source, stage=_STAGE, reason=reason, detail=detail)
