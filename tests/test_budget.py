"""The cap: it holds whatever the calls use and whenever the run is killed, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.chat_client.budget import Budget, open_budget
from longalign_core.chat_client.calls import ChatReply, ChatRequest, Spending
from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.prices import FREE, ModelPrices
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.errors import BudgetError, InputError, StoreError
from tests.chat_setup import request_of
from tests.fake_chat_server import Body, FakeChatServer, completion

PRODUCT = "instruct/0123456789abcdef"
# A dollar a token: 1,000 bytes may be 517 tokens at most, 16 more of reply.
DEAR = ModelPrices(input=1e6, output=1e6, seen="here")


def reply_of(prompt_tokens: int | None, reply_tokens: int | None, **changes: object) -> ChatReply:
    return ChatReply(
        text="",
        finish_reason="stop",
        model="m",
        prompt_tokens=prompt_tokens,
        reply_tokens=reply_tokens,
        stored=False,
        **changes,
    )


def budget_of(ledger: Ledger, dollars: float | None = None, tokens: int | None = None, **changes: object) -> Budget:
    values = {"role": "generator", "model_prices": DEAR, "max_dollars": dollars, "max_tokens": tokens, **changes}
    return Budget(ledger, PRODUCT, **values)


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def test_budget_is_what_a_client_asks_for_leave(ledger):
    budget: Spending = budget_of(ledger)
    assert isinstance(asyncio.run(budget.admit(request_of("hello"))), str)


def test_budget_call_that_fits_is_admitted_and_gives_back_what_it_did_not_use(ledger):
    async def run() -> None:
        budget = budget_of(ledger, dollars=1000.0)
        ticket = await budget.admit(request_of("x" * 1000))
        assert budget.reserved.tokens == 500 + 17 + 16
        budget.settle(ticket, reply_of(250, 10))
        assert (budget.reserved.tokens, budget.reserved.dollars) == (0, 0.0)
        assert (budget.spent.tokens, budget.spent.dollars) == (260, 260.0)

    asyncio.run(run())


def test_budget_that_is_used_up_says_what_was_spent_the_cap_and_how_to_go_on(ledger):
    async def run() -> None:
        budget = budget_of(ledger, dollars=700.0)
        budget.settle(await budget.admit(request_of("x" * 1000)), reply_of(250, 10))
        with pytest.raises(BudgetError) as error:
            await budget.admit(request_of("x" * 1000))
        for part in (PRODUCT, "$260.0000", "$700.0", "$533.0000", "raise LONGALIGN_BUDGET_DOLLARS and run again"):
            assert part in str(error.value)
        assert "\n" not in str(error.value)
        assert budget.reserved.tokens == 0
        # What is smaller still fits.
        await budget.admit(request_of("x" * 10))

    asyncio.run(run())


def test_budget_in_tokens_holds_without_any_price(ledger):
    async def run() -> None:
        budget = budget_of(ledger, tokens=600, model_prices=None)
        budget.settle(await budget.admit(request_of("x" * 1000)), reply_of(250, 10))
        with pytest.raises(BudgetError, match=r"260 tokens.* of 600, .*raise LONGALIGN_BUDGET_TOKENS"):
            await budget.admit(request_of("x" * 1000))
        assert ledger.spent(PRODUCT).num_unpriced == 1

    asyncio.run(run())


def test_budget_call_waits_until_one_under_way_gives_back_what_it_did_not_use(ledger):
    async def run() -> None:
        budget = budget_of(ledger, dollars=800.0)
        first = await budget.admit(request_of("x" * 1000))
        second = asyncio.create_task(budget.admit(request_of("x" * 1000)))
        third = asyncio.create_task(budget.admit(request_of("x" * 10)))
        await asyncio.sleep(0)
        assert not second.done()
        budget.settle(first, reply_of(100, 1))
        await second
        # In turn: what would fit now has waited behind it, and goes on as soon as it fits.
        await third
        assert budget.reserved.tokens == 533 + 5 + 17 + 16

    asyncio.run(run())


def test_budget_waiters_learn_that_nothing_is_left_when_the_last_call_under_way_used_it(ledger):
    async def run() -> None:
        budget = budget_of(ledger, dollars=600.0)
        first = await budget.admit(request_of("x" * 1000))
        waiters = [asyncio.create_task(budget.admit(request_of("x" * 1000))) for _ in range(5)]
        await asyncio.sleep(0)
        budget.settle(first, reply_of(517, 16))
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(one) for one in outcomes] == [BudgetError] * 5
        assert budget.reserved.tokens == 0

    asyncio.run(run())


def test_budget_cancelled_waiters_leave_nothing_set_aside(ledger):
    async def run() -> None:
        budget = budget_of(ledger, dollars=600.0)
        first = await budget.admit(request_of("x" * 1000))
        early, late, last = (asyncio.create_task(budget.admit(request_of("x" * 1000))) for _ in range(3))
        await asyncio.sleep(0)
        early.cancel()
        await asyncio.sleep(0)
        budget.settle(first, reply_of(1, 1))
        # `late` was let through this instant, and is cancelled before it knows.
        late.cancel()
        ticket = await last
        budget.abandon(ticket, sent=False)
        assert (budget.reserved.tokens, budget.spent.tokens) == (0, 2)
        assert ledger.spent(PRODUCT).calls == 1

    asyncio.run(run())


def test_budget_reply_without_usage_counts_by_estimate_and_says_so(ledger, caplog):
    async def run() -> None:
        budget = budget_of(ledger, dollars=5000.0)
        for _ in range(2):
            budget.settle(await budget.admit(request_of("x" * 1000)), reply_of(None, None))
        assert budget.spent.dollars == 2 * 533.0
        assert ledger.spent(PRODUCT).num_estimated == 2

    asyncio.run(run())
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_budget_abandoned_call_comes_back_unless_it_may_have_been_charged(ledger):
    async def run() -> None:
        budget = budget_of(ledger, dollars=2000.0)
        budget.abandon(await budget.admit(request_of("x" * 1000)), sent=False)
        assert budget.spent.dollars == 0.0
        ticket = await budget.admit(request_of("x" * 1000))
        budget.abandon(ticket, sent=True)
        budget.abandon(ticket, sent=True)
        assert (budget.spent.dollars, budget.reserved.dollars) == (533.0, 0.0)

    asyncio.run(run())


def test_budget_ticket_that_the_ledger_lost_is_not_counted_as_nothing(ledger):
    with pytest.raises(StoreError, match="the ledger knows nothing of call"):
        budget_of(ledger).settle("0" * 32, reply_of(1, 1))


def test_budget_of_batches_counts_what_a_reply_used_once_whose_ticket_the_ledger_lost(ledger, caplog):
    budget = budget_of(ledger, tokens=1000, batch=True)
    for _ in range(2):  # A kill between ledger and batches has the second collection settle it again.
        budget.settle("0" * 32, reply_of(200, 10, batch=True))
        budget.abandon("1" * 32, sent=True)
    assert (budget.spent.tokens, budget.reserved.tokens, budget.num_lost) == (210, 0, 2)
    spent = ledger.spent(PRODUCT)
    assert (spent.calls, spent.tokens, spent.num_open) == (2, 210, 1)
    assert caplog.text.count("the ledger has lost calls of the generator") == 1


def test_budget_of_batches_gives_another_products_tickets_back_to_that_product(ledger):
    """Two products may share calls: whichever run comes first collects for both."""

    async def run() -> None:
        one = Budget(ledger, "instruct/one", "generator", DEAR, None, 10_000, batch=True)
        two = Budget(ledger, "instruct/two", "generator", DEAR, None, 600, batch=True)
        settled, abandoned = await one.admit(request_of("x" * 1000)), await one.admit(request_of("y" * 1000))
        two.settle(settled, reply_of(200, 10, batch=True))
        two.abandon(abandoned, sent=False)
        assert (two.spent.tokens, two.reserved.tokens) == (0, 0)
        assert (one.spent.tokens, one.reserved.tokens) == (210, 0)
        # Its own cap is neither wider nor narrower for it.
        await two.admit(request_of("x" * 1000))
        with pytest.raises(BudgetError):
            await two.admit(request_of("x" * 1000))

    asyncio.run(run())
    assert ledger.spent("instruct/one").tokens == 210


def test_budget_prompt_with_half_a_surrogate_pair_is_counted(ledger):
    assert asyncio.run(budget_of(ledger, tokens=1000).admit(request_of("\ud83d")))


def test_budget_of_two_roles_is_one_cap(ledger):
    async def run() -> None:
        generator = budget_of(ledger, dollars=600.0)
        judge = budget_of(ledger, dollars=600.0, role="judge")
        generator.settle(await generator.admit(request_of("x" * 1000)), reply_of(300, 10))
        with pytest.raises(BudgetError):
            await judge.admit(request_of("x" * 1000))
        # A model that is served here costs nothing, whatever is left.
        local = budget_of(ledger, dollars=600.0, role="judge", model_prices=FREE)
        await local.admit(request_of("x" * 100_000))

    asyncio.run(run())


def test_budget_in_dollars_without_a_price_is_refused_before_anything_is_spent(ledger):
    with pytest.raises(InputError, match="price of the generator's model is unknown"):
        budget_of(ledger, dollars=1.0, model_prices=None)
    assert ledger.spent().calls == 0


def test_budget_in_dollars_over_calls_that_had_no_price_is_refused(ledger):
    asyncio.run(budget_of(ledger, model_prices=None).admit(request_of("hello")))
    with pytest.raises(InputError, match="1 earlier calls of instruct/0123456789abcdef had no price"):
        budget_of(ledger, dollars=1.0)


def test_budget_of_batches_refuses_at_once_and_is_settled_by_a_later_run(tmp_path):
    path = tmp_path / "ledger.sqlite"
    prices = ModelPrices(input=1e6, output=1e6, batch_input=5e5, batch_output=5e5, seen="here")

    async def submit() -> str:
        with Ledger(path) as opened:
            budget = budget_of(opened, dollars=500.0, model_prices=prices, batch=True)
            ticket = await budget.admit(request_of("x" * 1000))
            assert budget.reserved.dollars == 533 / 2
            with pytest.raises(BudgetError):
                await budget.admit(request_of("x" * 1000))
            return ticket

    async def collect(ticket: str) -> None:
        with Ledger(path) as opened:
            budget = budget_of(opened, dollars=500.0, model_prices=prices, batch=True)
            assert budget.reserved.dollars == 533 / 2
            budget.settle(ticket, reply_of(200, 10, batch=True))
            assert (budget.spent.dollars, budget.reserved.dollars) == (105.0, 0.0)
            await budget.admit(request_of("x" * 1000))

    asyncio.run(collect(asyncio.run(submit())))


def test_budget_learns_from_the_provider_how_many_tokens_a_byte_of_a_corpus_has(tmp_path):
    async def run(path: Path, corpus: str) -> int:
        with Ledger(path) as opened:
            budget = budget_of(opened)
            for number in range(20):
                ticket = await budget.admit(request_of("x" * 4000, corpus="english"))
                budget.settle(ticket, reply_of(1000 + number, 1))
            await budget.admit(request_of("x" * 100_000, corpus=corpus))
            return budget.reserved.tokens

    # A quarter token a byte and a tenth more, where a half was assumed and still is of other corpora.
    known = asyncio.run(run(tmp_path / "first.sqlite", "english"))
    assert 100_000 * 1019 / 4000 < known < 100_000 * 0.29
    assert asyncio.run(run(tmp_path / "second.sqlite", "chinese")) > 50_000


def test_budget_of_the_runtime_has_its_caps_and_the_prices_in_force(ledger, tmp_path):
    (tmp_path / "prices.yaml").write_text(
        "schema: 1\ndate: 2026-01-31\nmodels:\n  m: {input: 1000000, output: 1000000, seen: here}\n"
    )
    endpoints = {"generator": "http://127.0.0.1:8000/v1"}
    runtime = Runtime(endpoints=endpoints, prices=tmp_path / "prices.yaml", budget_dollars=600.0)

    async def run() -> None:
        budget = open_budget(ledger, PRODUCT, "generator", ChatModel(model="m"), runtime)
        ticket = await budget.admit(request_of("x" * 1000))
        row = ledger.find(ticket)
        assert row is not None
        assert (row.dollars, row.price_date) == (533.0, "2026-01-31")
        # Served here: no dollars, whatever the cap.
        local = open_budget(ledger, PRODUCT, "judge", ChatModel(model="m", checkpoint="weights"), runtime)
        row = ledger.find(await local.admit(request_of("x" * 1000)))
        assert row is not None
        assert (row.dollars, row.price_date) == (0.0, "")

    asyncio.run(run())


def test_budget_of_the_runtime_in_dollars_for_a_model_without_a_price_is_refused_before_anything_is_spent(ledger):
    model = ChatModel(model="claude-haiku-4.5")
    with pytest.raises(InputError, match=r"near to it are claude-haiku-4-5, .*names match exactly"):
        open_budget(ledger, PRODUCT, "generator", model, Runtime(budget_dollars=1.0))
    assert ledger.spent().calls == 0
    # Without that cap it is asked, and its price stays unknown.
    ticket = asyncio.run(
        open_budget(ledger, PRODUCT, "generator", model, Runtime(budget_tokens=9999)).admit(request_of("hi"))
    )
    row = ledger.find(ticket)
    assert row is not None
    assert (row.dollars, row.price_date) == (None, "")


@dataclass(frozen=True)
class Call:
    """One call of a random run; the provider charges `used` of what it may take, reply or not."""

    size: int
    used: float
    ending: str
    steps: int


CALLS = st.builds(
    Call,
    size=st.integers(0, 400),
    used=st.floats(0, 1),
    ending=st.sampled_from(["answered", "answered", "no usage", "lost", "refused"]),
    steps=st.integers(0, 6),
)


@settings(max_examples=60, deadline=None)
@given(
    cap=st.integers(1, 3000),
    runs=st.lists(st.tuples(st.lists(CALLS, max_size=12), st.integers(0, 12)), min_size=1, max_size=4),
    in_dollars=st.booleans(),
)
def test_budget_is_never_passed_over_all_runs_whenever_they_are_killed(cap, runs, in_dollars):
    charged = 0

    async def one(budget: Budget, call: Call) -> None:
        nonlocal charged
        ticket = await budget.admit(request_of("x" * call.size))
        # At most a token for two bytes and a little for the template, and the whole reply.
        prompt, replied = int((call.size / 2 + 16) * call.used), int(16 * call.used)
        if call.ending != "refused":
            charged += prompt + replied
            assert charged <= cap
        for _ in range(call.steps):
            await asyncio.sleep(0)
        if call.ending == "answered":
            budget.settle(ticket, reply_of(prompt, replied))
        elif call.ending == "no usage":
            budget.settle(ticket, reply_of(None, None))
        else:
            budget.abandon(ticket, sent=call.ending == "lost")

    async def run(path: Path, calls: list[Call], steps_to_live: int | None) -> None:
        with Ledger(path) as opened:
            budget = budget_of(opened, **({"dollars": float(cap)} if in_dollars else {"tokens": cap}))
            assert budget.spent.tokens >= charged
            tasks = [asyncio.create_task(one(budget, call)) for call in calls]
            if steps_to_live is None:
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(outcome) for outcome in outcomes} <= {type(None), BudgetError}
                assert budget.reserved.tokens == 0
                assert abs(budget.reserved.dollars) < 1e-6
                return
            for _ in range(steps_to_live):
                await asyncio.sleep(0)
            # As a SIGKILL: nothing that was under way is settled or given back.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        for calls, steps in runs:
            asyncio.run(run(path, calls, steps))
        asyncio.run(run(path, runs[-1][0], None))


SPENDER = """
import asyncio, sys
from pathlib import Path
import httpx
from longalign_core.chat_client.budget import Budget, open_budget
from longalign_core.chat_client.ledger import Ledger
from longalign_core.errors import BudgetError
from tests.test_budget import DEAR, PRODUCT, reply_of
from tests.chat_setup import request_of

async def one(client, budget, words):
    ticket = await budget.admit(request_of(words))
    body = {"model": "m", "messages": [{"role": "user", "content": words}]}
    usage = (await client.post(sys.argv[2] + "/chat/completions", json=body)).json()["usage"]
    budget.settle(ticket, reply_of(usage["prompt_tokens"], usage["completion_tokens"]))

async def main():
    with Ledger(Path(sys.argv[1])) as ledger:
        async with httpx.AsyncClient(timeout=60) as client:
            budget = Budget(ledger, PRODUCT, "generator", DEAR, float(sys.argv[3]), None)
            works = [one(client, budget, "word " * (20 + number % 7)) for number in range(200)]
            outcomes = await asyncio.gather(*works, return_exceptions=True)
    sys.exit(1 if any(isinstance(one, BudgetError) for one in outcomes) else 0)

asyncio.run(main())
"""


@pytest.mark.slow
def test_budget_holds_at_the_server_over_processes_that_are_killed(tmp_path):
    cap, draw = 3000.0, random.Random(4)

    def respond(body: Body) -> str:
        return completion("a reply", body=body)

    def charged(server: FakeChatServer) -> int:
        return sum(len(body["messages"][0]["content"].split()) + 2 for body in server.requests)

    root = str(Path(__file__).resolve().parent.parent)
    with FakeChatServer(respond) as server:
        command = [sys.executable, "-c", SPENDER, str(tmp_path / "ledger.sqlite"), server.url, str(cap)]
        for _ in range(4):
            before = len(server.requests)
            process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": root})
            enough = before + draw.randint(1, 12)
            deadline = time.monotonic() + 60
            while process.poll() is None and len(server.requests) < enough and time.monotonic() < deadline:
                time.sleep(0.002)
            process.kill()
            process.wait()
            assert charged(server) <= cap
        assert subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, timeout=120).returncode == 1
        assert len(server.requests) > 4
        assert charged(server) <= cap
        # What stopped it is the cap: what is left, with what killed runs may have used, holds no further call.
        with Ledger(tmp_path / "ledger.sqlite") as opened:
            spent = opened.spent(PRODUCT)
            assert charged(server) <= spent.dollars <= cap
            assert spent.dollars > cap - 150


def test_budget_request_fields_enter_the_ledger(ledger):
    request: ChatRequest = request_of("hello", task_type="summary", corpus="books", purpose="answer")
    ticket = asyncio.run(budget_of(ledger, price_date="2026-01-31").admit(request))
    row = ledger.find(ticket)
    assert row is not None
    assert (row.product, row.role, row.model, row.purpose) == (PRODUCT, "generator", "m", "answer")
    assert (row.task_type, row.corpus, row.state, row.price_date) == ("summary", "books", "sent", "2026-01-31")
