"""The generator, and the judge where answers are grounded, asked about documents: call by call or in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from longalign_core.chat_client import CallFailedError, ChatReply, ChatRequest
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.runtime import Runtime
from longalign_core.instruct.draws import Draws
from longalign_core.instruct.generation import Task, write_conversation
from longalign_core.instruct.grounding import check_grounding, evidence_positions
from longalign_core.instruct.online import Outcome
from longalign_core.instruct.schedule import Place, Schedule
from longalign_core.record_files import RecordRows
from longalign_core.records import Conversation, Document
from longalign_core.stage import Counts

Ask = Callable[[ChatRequest], Awaitable[ChatReply]]
Keep = Callable[[Place, Outcome], None]
# While one document's reply is read and its next prompt made, another one's call takes its slot.
_DOCUMENTS_PER_CALL = 1.25


@dataclass(frozen=True)
class _Writer:
    """Writes one conversation."""

    documents: RecordRows[Document]
    config: InstructConfig
    draws: Draws

    async def write(self, place: Place, ask: Ask, ask_judge: Ask | None) -> Outcome:
        kinds = {kind.name: kind for kind in self.config.tasks}
        entries = (place.entry, *place.more)
        first, *more = await asyncio.to_thread(lambda: [self.documents[entry.row] for entry in entries])
        task = Task(document=first, more_documents=tuple(more), task_type=kinds[place.task_type])
        texts = [one.text for one in (first, *more)]
        try:
            outcome = await write_conversation(task, self.config, ask, self.draws)
            if not isinstance(outcome, Conversation):
                return outcome
            if self.config.grounding and ask_judge:
                return await check_grounding(outcome, texts, self.config.grounding, ask_judge)
        except CallFailedError as error:
            return error
        answer = outcome.messages[-1].content
        return replace(outcome, evidence=await asyncio.to_thread(evidence_positions, texts[0], answer))


def ask_about(
    schedule: Schedule, documents: RecordRows[Document], config: InstructConfig, runtime: Runtime, keep: Keep
) -> Counts:
    """Work through a schedule; every outcome goes to `keep`.

    Returns:
        What was asked: calls, stored_calls, tokens, and what they cost.

    Raises:
        EndpointError: An endpoint cannot be opened, or no further call to it can succeed.
        BudgetError: The spending cap was reached.
        WaitingError: Batches were submitted whose replies are still to come.
    """
    raise NotImplementedError
