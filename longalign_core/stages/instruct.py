"""Selected documents to conversations, through the generator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from longalign_core.chat_client.calls import CallFailedError, given_up_error
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.config.task_types import TaskName
from longalign_core.progress import track
from longalign_core.record_files import read_records, write_json_lines
from longalign_core.records import Conversation, Document, Reject
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.licences import carry_licences
from longalign_core.stages.outcomes import conversation_row, write_outcomes

if TYPE_CHECKING:
    from longalign_core.chat_client import ChatClient

log = logging.getLogger(__name__)
# A document of 64k tokens is about a quarter of a megabyte, and so is its conversation.
_BATCH = 16
_AHEAD_PER_CALL = 4


@dataclass(frozen=True, slots=True)
class _DocumentId:
    """The one column that task types are assigned by."""

    id: str


@stage("instruct", version=2)
def instruct(config: InstructConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Write one conversation a document, or the reason why there is none, in the documents' order.

    Answered calls lie in the scratch folder's response store, whatever the address they were asked
    for, so a run that was killed asks only what was not answered.

    Raises:
        EndpointError: The generator cannot be reached, refuses the key, or does not know the model,
            at the start or in the middle; or, after everything was asked, some calls were given up
            for reasons that pass.
    """
    from longalign_core.instruct.assignment import assign_task_types

    (selected,) = inputs["documents"]
    documents = selected / "documents.parquet"
    ids = [record.id for record in read_records(documents, _DocumentId)]
    task_types = assign_task_types(ids, [task.name for task in config.tasks], config.seed)
    conversations = out_dir / "conversations.parquet"
    by_type = dict.fromkeys((task.name for task in config.tasks), 0)
    calls: Counts = {}

    def finished() -> Generator[Conversation | Reject]:
        num_rejects = 0
        given_up: list[str] = []
        with track("instruct", total=len(ids), unit="documents") as step:
            for outcome in _outcomes(documents, task_types, config, runtime, calls) if ids else ():
                num_rejects += isinstance(outcome, Reject)
                step(1, f"{num_rejects} rejected" if num_rejects else "")
                if isinstance(outcome, CallFailedError):
                    given_up.append(outcome.reason)
                    continue
                if isinstance(outcome, Conversation):
                    by_type[task_types[outcome.id]] += 1
                yield outcome
        if given_up:
            raise given_up_error({"generator": given_up})

    # Closed here and now should writing fail, so that the model server ends with the stage.
    with closing(finished()) as stream:
        counts = write_outcomes(stream, out_dir, conversations.name, Conversation, batch=_BATCH)
    rows = (conversation_row(one) for one in read_records(conversations, Conversation, batch=_BATCH))
    write_json_lines(out_dir / "conversations.jsonl", rows)
    log.info("%d documents gave %d conversations", len(ids), counts["conversations"])
    return {
        "documents": len(ids),
        **counts,
        **{f"conversations: {name}": number for name, number in by_type.items()},
        **calls,
        **carry_licences((selected,), conversations, out_dir),
    }


def _outcomes(
    documents: Path, task_types: dict[str, TaskName], config: InstructConfig, runtime: Runtime, calls: Counts
) -> Iterator[Conversation | Reject | CallFailedError]:
    """One outcome a document, in order; afterwards `calls` holds what was asked.

    Calls given up for passing reasons are outcomes too, so that they do not stop the other documents.
    """
    from longalign_core.chat_client import ChatClient, ChatReply, ChatRequest, ResponseStore
    from longalign_core.instruct.concurrency import in_order, pulled
    from longalign_core.instruct.draws import Draws
    from longalign_core.instruct.generation import Task, write_conversation
    from longalign_core.serving import calls_in_flight, endpoint_for
    from longalign_core.sources import weights_fingerprint

    generator = _at_local_path(config.generator, runtime)
    weights = weights_fingerprint(config.generator.checkpoint, runtime)
    by_name = {task.name: task for task in config.tasks}
    at_once = calls_in_flight("generator", runtime)

    async def stream(client: ChatClient) -> AsyncGenerator[Conversation | Reject | CallFailedError]:
        async with client:
            await client.check(generator.model)

            async def ask(request: ChatRequest) -> ChatReply:
                return await client.ask(replace(request, weights=weights))

            async def work(document: Document) -> Conversation | Reject | CallFailedError:
                try:
                    task = Task(document=document, task_type=by_name[task_types[document.id]])
                    return await write_conversation(task, config, ask, draws)
                except CallFailedError as error:
                    return error

            outcomes = in_order(
                read_records(documents, Document, batch=_BATCH),
                work,
                at_once=at_once,
                ahead=at_once * _AHEAD_PER_CALL,
            )
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    yield outcome

    # The runner is the last to be entered and so the first to end: replies that are being stored get stored.
    with (
        endpoint_for("generator", generator, runtime) as endpoint,
        ResponseStore(runtime.scratch / "responses" / "instruct.sqlite") as responses,
        asyncio.Runner() as runner,
    ):
        draws = Draws(responses, config.seed)
        client = ChatClient(
            endpoint,
            responses,
            max_in_flight=at_once,
            timeout_seconds=runtime.request_timeout_seconds,
            max_retries=runtime.max_retries,
        )
        yield from pulled(runner, stream(client))
    calls |= {
        "calls": client.num_calls,
        "stored_calls": client.num_stored,
        "prompt_tokens": client.prompt_tokens,
        "reply_tokens": client.reply_tokens,
    }


def _at_local_path(generator: ChatModel, runtime: Runtime) -> ChatModel:
    """The generator with its weights, if it has any here, as a folder of this machine."""
    if generator.checkpoint is None or "generator" in runtime.endpoints:
        return generator
    from longalign_core.sources import local_path

    return generator.model_copy(update={"checkpoint": str(local_path(generator.checkpoint, runtime))})
