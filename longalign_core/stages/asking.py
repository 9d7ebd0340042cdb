"""The generator, and the judge where answers are grounded, asked about documents: call by call or in batches."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop

from longalign_core.chat_client import CallFailedError, ChatClient, ChatReply, ChatRequest, Endpoint
from longalign_core.chat_client.archive import shelf_of
from longalign_core.chat_client.batches import BatchClient
from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.spending import spending_of, write_spending
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.quality import QualityConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.instruct.draws import Draws
from longalign_core.instruct.evidence import evidence_positions, with_evidence
from longalign_core.instruct.generation import Task, write_conversation
from longalign_core.instruct.grounding import check_grounding
from longalign_core.instruct.online import Outcome, work_through
from longalign_core.instruct.passes import BatchTask, run_passes
from longalign_core.instruct.quality import fault_of_answer
from longalign_core.instruct.schedule import Place, Schedule
from longalign_core.record_files import RecordRows
from longalign_core.records import Conversation, Document, Reject
from longalign_core.serving import calls_in_flight, endpoint_for
from longalign_core.sources import weights_fingerprint
from longalign_core.stage import Counts, current_address
from longalign_core.stages.model_calls import ModelCalls, open_calls, open_ledger
from longalign_core.stages.model_folders import model_path

Ask = Callable[[ChatRequest], Awaitable[ChatReply]]
Keep = Callable[[Place, Outcome], None]
GENERATOR, JUDGE = "generator", "judge"
# While one document's reply is read and its next prompt is made, another one's call takes its slot.
_SPARE_SHARE = 0.25


@dataclass(frozen=True)
class _Role:
    """A model with all that asking it takes, opened; `model` is its name in requests."""

    model: str
    endpoint: Endpoint
    calls: ModelCalls
    weights: str | None
    at_once: int
    runtime: Runtime

    def client(self) -> ChatClient:
        """A client for single calls."""
        return ChatClient(
            self.endpoint,
            self.calls.responses,
            max_in_flight=self.at_once,
            timeout_seconds=self.runtime.request_timeout_seconds,
            max_retries=self.runtime.max_retries,
            spending=self.calls.spending,
        )

    @property
    def places_at_once(self) -> int:
        """So many places keep its calls in flight."""
        return math.ceil(self.at_once * (1 + _SPARE_SHARE))

    def asking(self, ask: Ask) -> Ask:
        """The same `ask` for requests that do not know the weights behind the model's name."""
        return lambda request: ask(replace(request, weights=self.weights))


@dataclass
class Asking:
    """One run over a schedule.

    Attributes:
        schedule: Where places come from.
        documents: By row.
        keep: Takes every outcome.
    """

    schedule: Schedule
    documents: RecordRows[Document]
    config: InstructConfig
    runtime: Runtime
    keep: Keep
    _draws: Draws = field(init=False)

    def run(self, spending: Path) -> Counts:
        """Ask until every place is settled.

        Args:
            spending: File to write down what it cost.

        Returns:
            What was asked: calls, stored replies, tokens, dollars.

        Raises:
            InputError: Batches are wanted of an endpoint that has none, or a dollar cap of a model without a price.
            EndpointError: An endpoint cannot be opened, or no further call to it can succeed.
            BudgetError: The spending cap was reached, and no batch is under way that may give money back.
            WaitingError: Batches were submitted whose replies are still to come.
        """
        grounding = self.config.grounding
        is_batch = self.runtime.generator_calls == "batch"
        # The judge's server starts first and ends last; replies are archived before servers end.
        with ExitStack() as opened:
            ledger = opened.enter_context(open_ledger(self.runtime))
            judge = self._open(opened, JUDGE, grounding.judge, ledger) if grounding else None
            generator = self._open(opened, GENERATOR, self.config.generator, ledger, batch=is_batch)
            self._draws = Draws(generator.calls.responses, self.config.seed)
            asked = uvloop.run(self._in_batches(generator, judge) if is_batch else self._online(generator, judge))
            write_spending(spending, ledger, current_address())
            if self._draws.num_repeated:
                asked["questions like another's"] = self._draws.num_repeated
            return {**asked, **spending_of(ledger, current_address())}

    def _open(self, opened: ExitStack, role: str, model: ChatModel, ledger: Ledger, *, batch: bool = False) -> _Role:
        if batch and (role not in self.runtime.endpoints or self.runtime.endpoints[role].startswith("http")):
            raise InputError(
                "LONGALIGN_GENERATOR_CALLS=batch needs a provider that has batches; name openai, openai-responses or "
                "anthropic as the generator's endpoint, or ask online"
            )
        # The caps and the price are looked at before a server is started.
        calls = opened.enter_context(open_calls("instruct", role, model, self.runtime, ledger, batch=batch))
        weights = weights_fingerprint(model.checkpoint, self.runtime)
        if model.checkpoint is not None and role not in self.runtime.endpoints:
            model = model.model_copy(update={"checkpoint": str(model_path(model.checkpoint, self.runtime))})
        endpoint = opened.enter_context(endpoint_for(role, model, self.runtime))
        return _Role(model.model, endpoint, calls, weights, calls_in_flight(role, self.runtime), self.runtime)

    async def _online(self, generator: _Role, judge: _Role | None) -> Counts:
        roles = [role for role in (generator, judge) if role]
        clients = [role.client() for role in roles]
        async with AsyncExitStack() as opened:
            for client in clients:
                await opened.enter_async_context(client)
            for role, client in zip(roles, clients, strict=True):
                await client.check(role.model)
            await asyncio.to_thread(_load_what_reads_answers, self.config.quality)
            ask = generator.asking(clients[0].ask)
            ask_judge = judge.asking(clients[1].ask) if judge else None
            await work_through(
                self.schedule,
                lambda place: self._write(place, ask, ask_judge),
                self.keep,
                at_once=generator.places_at_once,
            )
        return _counts(clients)

    async def _in_batches(self, generator: _Role, judge: _Role | None) -> Counts:
        batches = BatchClient(
            generator.endpoint,
            generator.calls.responses,
            # A model's own: whoever collects stores what came as this model's, at this model's prices.
            self.runtime.scratch / "batches" / shelf_of(GENERATOR, self.config.generator.model),
            timeout_seconds=self.runtime.request_timeout_seconds,
            spending=generator.calls.spending,
        )
        judges: list[ChatClient] = []

        @asynccontextmanager
        async def asking_judge() -> AsyncIterator[None]:
            # Anew for every pass: a client that the budget refused sends nothing more, but batches may give money back.
            if judge:
                judges.append(judge.client())
                async with judges[-1]:
                    yield
            else:
                yield

        async with batches:
            await batches.check(generator.model)
            if judge:
                async with judge.client() as client:
                    await client.check(judge.model)

            def task(place: Place) -> BatchTask[Outcome]:
                async def work(ask: Ask) -> Outcome:
                    ask_judge = judge.asking(judges[-1].ask) if judge else None
                    return await self._write(place, generator.asking(ask), ask_judge)

                return BatchTask(place.entry.id, work)

            places = self.schedule.begin()
            by_id = {place.entry.id: place for place in places}

            def settled(done: BatchTask[Outcome], outcome: Outcome) -> Iterable[BatchTask[Outcome]]:
                place = by_id.pop(done.id)
                self.keep(place, outcome)
                further = self.schedule.settle(place, accepted=not isinstance(outcome, Reject))
                by_id.update({one.entry.id: one for one in further})
                return [task(one) for one in further]

            await run_passes(
                [task(place) for place in places],
                batches,
                settled=settled,
                wait_seconds=self.runtime.batch_wait_seconds,
                at_once=judge.places_at_once if judge else 1,
                around_pass=asking_judge,
            )
        return {"batch_calls": batches.num_submitted, **_counts(judges)}

    async def _write(self, place: Place, ask: Ask, ask_judge: Ask | None) -> Outcome:
        kinds = {kind.name: kind for kind in self.config.tasks}
        rows = [entry.row for entry in (place.entry, *place.more)]
        first, *more = await asyncio.to_thread(lambda: [self.documents[row] for row in rows])
        texts = [one.text for one in (first, *more)]
        task = Task(document=first, more_documents=tuple(more), task_type=kinds[place.task_type])
        try:
            outcome = await write_conversation(task, self.config, ask, self._draws)
            if not isinstance(outcome, Conversation):
                return outcome
            if self.config.grounding and ask_judge:
                return await check_grounding(outcome, texts, self.config.grounding, ask_judge)
        except CallFailedError as error:
            return error
        return await asyncio.to_thread(with_evidence, outcome, texts)


def _load_what_reads_answers(quality: QualityConfig) -> None:
    """Libraries and compiled code behind the checks: loaded at the first answer they would hold up all calls."""
    answer = " ".join(f"Sentence {number} answers the question in words of its own." for number in range(40))
    fault_of_answer(answer, "What does it say?", [answer], "en", quality)
    evidence_positions(answer, answer)


def _counts(clients: list[ChatClient]) -> Counts:
    return {
        "calls": sum(client.num_calls for client in clients),
        "stored_calls": sum(client.num_stored for client in clients),
        "prompt_tokens": sum(client.prompt_tokens for client in clients),
        "cached_tokens": sum(client.cached_tokens for client in clients),
        "reply_tokens": sum(client.reply_tokens for client in clients),
    }
