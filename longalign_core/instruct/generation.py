"""Self-instruct on one document: a call for questions, a draw, a call for the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest
from longalign_core.config.instruct import InstructConfig, TaskType
from longalign_core.instruct.assignment import draw_question
from longalign_core.instruct.prompts import answer_prompt, questions_prompt
from longalign_core.instruct.replies import NO_QUESTIONS, fault_of_reply, parse_questions
from longalign_core.records import Conversation, Document, Message, Reject

STAGE = "instruct"
PROMPT_TOO_LONG = "prompt too long"
# Text with fewer bytes a token is rare in any language, so this rather counts too many tokens.
_BYTES_PER_TOKEN = 3
# Room for the chat template around the prompt.
_TEMPLATE_TOKENS = 32


class _UnusableError(Exception):
    """The document gives no conversation. Never leaves this module."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


async def write_conversation(
    document: Document,
    task_type: TaskType,
    config: InstructConfig,
    ask: Callable[[ChatRequest], Awaitable[ChatReply]],
) -> Conversation | Reject:
    """Have the generator write one question about a document and its answer.

    A failure never becomes an answer: replies that were cut short, filtered, empty or refusing, and
    requests that the endpoint will never answer, end in a Reject.

    Args:
        document: The document; its text goes first in both prompts.
        task_type: The kind of question.
        config: Generator, number of questions, seed.
        ask: Sends a request to the generator.

    Raises:
        CallFailedError: From `ask`, a call given up for a reason that passes: nothing is known of the document.
        EndpointError: From `ask`, when no further call can succeed.
    """
    try:
        prompt = questions_prompt(document.text, document.language, task_type, config.questions_per_document)
        reply = await _usable_reply(document, prompt, "questions", config, ask)
        questions = parse_questions(reply, config.questions_per_document)
        if not questions:
            raise _UnusableError(NO_QUESTIONS, f"questions: no numbered line in {len(reply)} characters")
        question = draw_question(questions, document.id, config.seed)
        prompt = answer_prompt(document.text, question)
        answer = await _usable_reply(document, prompt, "answer", config, ask)
    except _UnusableError as fault:
        return Reject(id=document.id, source=document.source, stage=STAGE, reason=fault.reason, detail=fault.detail)
    return Conversation(
        id=document.id,
        messages=(Message(role="user", content=prompt), Message(role="assistant", content=answer.strip())),
        source=document.source,
        task_type=task_type,
        language=document.language,
        document_id=document.id,
        model=config.generator.model,
        licence=document.licence,
    )


async def _usable_reply(
    document: Document,
    prompt: str,
    purpose: str,
    config: InstructConfig,
    ask: Callable[[ChatRequest], Awaitable[ChatReply]],
) -> str:
    generator = config.generator
    room = generator.context_tokens - generator.max_tokens
    if (needed := estimate_tokens(document, prompt)) > room:
        raise _UnusableError(PROMPT_TOO_LONG, f"{purpose}: about {needed} tokens, where the window leaves {room}")
    request = ChatRequest(
        model=generator.model,
        messages=(Message(role="user", content=prompt),),
        temperature=generator.temperature,
        top_p=generator.top_p,
        max_tokens=generator.max_tokens,
        purpose=purpose,
    )
    try:
        reply = await ask(request)
    except CallFailedError as error:
        if error.passing:
            raise
        raise _UnusableError(error.reason, f"{purpose}: {error.detail}") from None
    if fault := fault_of_reply(reply):
        raise _UnusableError(fault, f"{purpose}: {len(reply.text)} characters, finish reason {reply.finish_reason!r}")
    return reply.text


def estimate_tokens(document: Document, prompt: str) -> int:
    """Tokens of a prompt that begins with the document, rather too many than too few.

    The document counts as `select` counted it, where it did; all else by its bytes.
    """
    words = prompt.removeprefix(document.text) if document.num_tokens is not None else prompt
    return (document.num_tokens or 0) + -(-len(words.encode()) // _BYTES_PER_TOKEN) + _TEMPLATE_TOKENS
