"""Self-instruct on one document, or several at once: a call for questions, a draw, a call for the answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.task_types import TaskType
from longalign_core.instruct.draws import Draws, draw_number
from longalign_core.instruct.near_questions import NearQuestions
from longalign_core.instruct.prompts import (
    QUESTIONS_SCHEMA,
    after_text,
    follow_up_prompt,
    joined_text,
    questions_prompt,
)
from longalign_core.instruct.quality import fault_of_answer
from longalign_core.instruct.question_lists import parse_questions
from longalign_core.instruct.replies import (
    NO_QUESTIONS,
    REFUSAL,
    REPEATED,
    TOO_SHORT,
    Fault,
    fault_of_reply,
    num_words,
    refuses_list,
)
from longalign_core.instruct.task_forms import form_of
from longalign_core.instruct.window import PROMPT_TOO_LONG, estimate_tokens
from longalign_core.records import Conversation, Document, Message, Reject

STAGE = "instruct"
Ask = Callable[[ChatRequest], Awaitable[ChatReply]]
"""Sends a request to the generator, or finds its reply in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One conversation to be written.

    Attributes:
        document: The document it is about; the conversation has its id.
        more_documents: Further ones, for task types over several.
        task_type: What is asked.
    """

    document: Document
    more_documents: tuple[Document, ...] = ()
    task_type: TaskType

    def __post_init__(self) -> None:
        assert len(self.documents) == self.task_type.num_documents, "as many documents as the task type is about"

    @property
    def documents(self) -> tuple[Document, ...]:
        """All of them, in the order of the prompt."""
        return (self.document, *self.more_documents)

    @property
    def ids(self) -> str:
        """Names the documents in draws."""
        return "\0".join(one.id for one in self.documents)


class _UnusableError(Exception):
    """The task gives no conversation. Never leaves this module."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


async def write_conversation(task: Task, config: InstructConfig, ask: Ask, draws: Draws) -> Conversation | Reject:
    """Have the generator write questions about a document and answer the drawn one, in as many turns as the task has.

    A failure never becomes an answer: replies that were cut short, filtered, empty or refusing, answers
    that quality forbids, and requests that the endpoint will never answer, end in a Reject. Nothing is
    held between calls: called again, it takes the same way over stored replies and noted draws.

    A conversation of several turns that has its fewest may end before the turns drawn for it, when the
    model's window is full or the model has nothing new to ask; `usage["turns_left_out"]` says so.

    Args:
        task: The documents and what is asked.
        config: Generator, number of questions, seed, wording.
        ask: Sends a request.
        draws: Chooses among listed questions.

    Raises:
        CallFailedError: From `ask`, a call given up for a reason that passes: nothing is known of the document.
        EndpointError: From `ask`, when no further call can succeed.
    """
    writer = _Writer(task, config, ask, draws)
    document = task.document
    try:
        await writer.write()
    except _UnusableError as error:
        fault = error.fault
        return Reject(id=document.id, source=document.source, stage=STAGE, reason=fault.reason, detail=fault.detail)
    return Conversation(
        id=document.id,
        messages=tuple(writer.messages),
        source=document.source,
        task_type=task.task_type.name,
        language=document.language,
        document_id=document.id,
        more_documents=tuple(one.id for one in task.more_documents),
        model=config.generator.model,
        licence=_joined_licence(task.documents),
        usage=writer.usage(),
    )


class _Writer:
    """A conversation while it is written."""

    def __init__(self, task: Task, config: InstructConfig, ask: Ask, draws: Draws) -> None:
        self.messages: list[Message] = []
        self._task = task
        self._config = config
        self._ask = ask
        self._draws = draws
        self._language = task.document.language
        self._text = joined_text(task.documents)
        self._form = form_of(task.task_type, self._language)
        self._asked = NearQuestions()
        self._replies: list[ChatReply] = []
        self._turns_left_out = 0

    async def write(self) -> None:
        fewest, most = self._form.min_turns, self._form.max_turns
        num_turns = fewest + draw_number(self._config.seed, "turns", self._task.ids) % (most - fewest + 1)
        for turn in range(num_turns):
            try:
                question = await self._question(turn)
                await self._answer(question)
            except _UnusableError as error:
                if turn < fewest or error.fault.reason not in (PROMPT_TOO_LONG, REPEATED):
                    raise
                self._turns_left_out = num_turns - turn
                return

    async def _question(self, turn: int) -> str:
        number, structured = self._config.questions_per_document, self._config.structured_questions
        if turn == 0:
            words = questions_prompt(
                self._text,
                self._language,
                self._form.request,
                number,
                structured=structured,
                is_task=self._form.is_task,
            )
        else:
            words = follow_up_prompt(self._language, number, structured=structured)
        request = self._request(words, "questions", QUESTIONS_SCHEMA if structured else None)
        reply = await self._whole_reply(request)
        if refuses_list(reply):
            raise _UnusableError(Fault(REFUSAL, f"questions: {len(reply)} characters that begin with a refusal"))
        questions = parse_questions(reply, number)
        if not questions:
            raise _UnusableError(Fault(NO_QUESTIONS, f"questions: no numbered line in {len(reply)} characters"))
        new = [question for question in questions if not self._asked.likeness(question)]
        if not new:
            raise _UnusableError(Fault(REPEATED, f"questions: turn {turn + 1} would ask again what was asked before"))
        listed_by = hashlib.sha256(reply.encode("utf-8", "surrogatepass")).hexdigest()
        drawn = await self._draws.draw(
            new,
            of=f"{self._task.task_type.name}\0{request.key}\0{listed_by}",
            subject=self._task.ids + (f"\0turn {turn}" if turn else ""),
        )
        self._asked.add(drawn)
        return self._form.question(drawn)

    async def _answer(self, question: str) -> None:
        instructions = self._config.answer_instructions_en
        if self._language == "zh":
            instructions = self._config.answer_instructions_zh
        kept = question if self.messages else after_text(self._text, question)
        request = self._request(f"{kept}\n\n{instructions}" if instructions else kept, "answer")
        answer = await self._whole_reply(request)
        texts = [one.text for one in self._task.documents]
        # In a thread: over a long document it takes a while, in which other calls go on.
        fault = await asyncio.to_thread(fault_of_answer, answer, question, texts, self._language, self._config.quality)
        if fault:
            raise _UnusableError(Fault(fault.reason, f"answer: {fault.detail}"))
        if (found := num_words(answer)) < self._form.min_words:
            raise _UnusableError(Fault(TOO_SHORT, f"answer: {found} words, where {self._form.min_words} were wanted"))
        self.messages += [Message(role="user", content=kept), Message(role="assistant", content=answer.strip())]

    def _request(self, words: str, purpose: str, reply_schema: str | None = None) -> ChatRequest:
        """The request that asks `words` next. Raises _UnusableError where it does not fit the window."""
        generator = self._config.generator
        messages = (*self.messages, Message(role="user", content=words))
        room = generator.context_tokens - generator.max_tokens
        if (needed := estimate_tokens(self._task.documents, len(self._text), messages)) > room:
            raise _UnusableError(
                Fault(PROMPT_TOO_LONG, f"{purpose}: about {needed} tokens, where the window leaves {room}")
            )
        return ChatRequest(
            model=generator.model,
            messages=messages,
            temperature=generator.temperature,
            top_p=generator.top_p,
            max_tokens=generator.max_tokens,
            purpose=purpose,
            task_type=self._task.task_type.name,
            corpus=self._task.document.source,
            shared_characters=len(self._text),
            # A reply out of the store says nothing of what the provider remembers now.
            continues=bool(self._replies) and not self._replies[-1].stored,
            reply_schema=reply_schema,
        )

    async def _whole_reply(self, request: ChatRequest) -> str:
        try:
            reply = await self._ask(request)
        except CallFailedError as error:
            if error.passing:
                raise
            raise _UnusableError(Fault(error.reason, f"{request.purpose}: {error.detail}")) from None
        self._replies.append(reply)
        if fault := fault_of_reply(reply):
            found = f"{len(reply.text)} characters, finish reason {reply.finish_reason!r}"
            raise _UnusableError(Fault(fault, f"{request.purpose}: {found}"))
        return reply.text

    def usage(self) -> dict[str, int]:
        """Sums over the calls; what the endpoint did not tell of every call is left out rather than told too low."""
        told = {
            "prompt_tokens": [one.prompt_tokens for one in self._replies],
            "cached_tokens": [one.cached_tokens for one in self._replies],
            "reply_tokens": [one.reply_tokens for one in self._replies],
        }
        known = {name: [one for one in counts if one is not None] for name, counts in told.items()}
        return {
            "calls": len(self._replies),
            **{name: sum(counts) for name, counts in known.items() if len(counts) == len(self._replies)},
            **({"turns_left_out": self._turns_left_out} if self._turns_left_out else {}),
        }


def _joined_licence(documents: tuple[Document, ...]) -> str | None:
    """All terms that hold for the texts together, as an SPDX expression; None where one is not known."""
    licences = {one.licence for one in documents}
    if len(licences) == 1:
        return documents[0].licence
    known = sorted(one for one in licences if one is not None)
    if len(known) < len(licences):
        return None
    return " AND ".join(f"({one})" if " OR " in one else one for one in known)
