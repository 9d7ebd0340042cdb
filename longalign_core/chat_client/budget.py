"""A cap on what the model calls of one product may cost, in dollars, in tokens, or both, over all runs.

Before a call is sent, the most that it may cost is set aside. It is sent only if all that was spent and is set
aside stays within the cap; what it did not use comes back when its reply is there. So the cap can be passed only
by as much as calls under way cost more than was estimated of them.
"""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

from longalign_core.chat_client.calls import ChatReply, ChatRequest
from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.prices import FREE, ModelPrices, load_prices
from longalign_core.chat_client.purse import Amount, Purse, amount_of
from longalign_core.chat_client.tickets import Ticket
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError, StoreError

log = logging.getLogger(__name__)
# Text of any language rarely has a token for less than two bytes.
_TOKENS_PER_BYTE = 0.5
# Room for the chat template around each message.
_TEMPLATE_TOKENS = 16
# The provider's own counts replace that once there are so many, of prompts of a corpus of so many bytes, with a margin.
_ENOUGH_CALLS, _ENOUGH_BYTES, _MARGIN = 20, 2_000, 1.1
# What the ledger says of a call that it lost, where the request would have told.
_LOST = "unknown"

# Weak: a purse lives as long as its ledger is open somewhere.
_purses: WeakKeyDictionary[Ledger, dict[str, Purse]] = WeakKeyDictionary()


class Budget:
    """What one role may spend on one product; implements `Spending`, within one event loop.

    Budgets of several roles over the same ledger and product share one cap.

    Attributes:
        num_lost: Calls in batches that came back and were not in the ledger any more; each is there again.
    """

    def __init__(
        self,
        ledger: Ledger,
        product: str,
        role: str,
        model_prices: ModelPrices | None,
        max_dollars: float | None,
        max_tokens: int | None,
        *,
        batch: bool = False,
        price_date: str = "",
    ) -> None:
        """Set up; what earlier runs spent on the product counts.

        Args:
            ledger: Where tickets are kept; not closed here.
            product: Address of the product that is made. Nobody else works at it.
            role: Whose calls these are.
            model_prices: Of the role's model; None when unknown, `FREE` for a model served here.
            max_dollars: Cap over all runs of the product; None for none.
            max_tokens: The same in tokens, prompts and replies together.
            batch: Whether calls go through the batch interface. Their replies come in a later run, so nothing
                waits for them: what does not fit is refused at once.
            price_date: Of the price file, for the ledger.

        Raises:
            InputError: A cap in dollars is set, but the price is unknown, or earlier calls had no price.
        """
        if max_dollars is not None and model_prices is None:
            raise InputError(
                f"LONGALIGN_BUDGET_DOLLARS is set, but the price of the {role}'s model is unknown; add it to a price "
                "file and name that in LONGALIGN_PRICES, or cap tokens with LONGALIGN_BUDGET_TOKENS"
            )
        self._ledger = ledger
        self._product = product
        self._role = role
        self._prices = model_prices
        self._batch = batch
        self._price_date = price_date if model_prices is not None else ""
        purses = _purses.setdefault(ledger, {})
        if product not in purses:
            purses[product] = Purse(ledger, product, max_dollars, max_tokens)
        self._purse = purses[product]
        self._purse.max_dollars, self._purse.max_tokens = max_dollars, max_tokens
        unpriced = ledger.spent(product).num_unpriced
        if max_dollars is not None and unpriced:
            raise InputError(
                f"LONGALIGN_BUDGET_DOLLARS is set, but {unpriced} earlier calls of {product} had no price, so "
                "what they cost is unknown; cap tokens with LONGALIGN_BUDGET_TOKENS instead"
            )
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}
        self._said_without_usage = False
        self.num_lost = 0

    @property
    def spent(self) -> Amount:
        """What settled calls of all runs of the product cost."""
        return Amount(self._purse.spent.dollars, self._purse.spent.tokens)

    @property
    def reserved(self) -> Amount:
        """What is set aside for calls that have no reply yet."""
        return Amount(self._purse.reserved.dollars, self._purse.reserved.tokens)

    async def admit(self, request: ChatRequest) -> str:
        """Wait until the call surely fits into what is left, and give its ticket.

        Raises:
            BudgetError: What is left does not allow it, and no call under way can give any back.
        """
        num_bytes, prompt_tokens = self._size(request)
        most = None
        if self._prices is not None:
            most = self._prices.most_dollars(prompt_tokens, request.max_tokens, batch=self._batch)
        need = Amount(most or 0.0, prompt_tokens + request.max_tokens)
        await self._purse.take(need, wait=not self._batch)
        try:
            return self._open_ticket(
                model=request.model,
                purpose=request.purpose,
                task_type=request.task_type,
                corpus=request.corpus,
                prompt_bytes=num_bytes,
                prompt_tokens=prompt_tokens,
                reply_tokens=request.max_tokens,
                dollars=most,
            )
        except BaseException:
            self._purse.give_back(need, Amount(), waited=not self._batch)
            raise

    def settle(self, ticket: str, reply: ChatReply) -> None:
        """The reply came, with what it used. What it does not tell counts by estimate."""
        row = self._waiting(ticket, reply.model)
        if row is None:
            return
        estimated = reply.prompt_tokens is None or reply.reply_tokens is None
        if estimated and not self._said_without_usage:
            self._said_without_usage = True
            log.warning("the %s's replies do not say how many tokens they used; they count by estimate", self._role)
        prompt = row.prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens
        replied = row.reply_tokens if reply.reply_tokens is None else reply.reply_tokens
        cached, written = reply.cached_tokens or 0, reply.cache_write_tokens or 0
        if self._prices is None:
            dollars = None
        elif reply.prompt_tokens is None:
            dollars = self._prices.most_dollars(prompt, replied, batch=row.batch)
        else:
            dollars = self._prices.dollars(
                prompt, replied, cached_tokens=cached, written_tokens=written, batch=row.batch
            )
        self._ledger.answer(
            ticket,
            prompt_tokens=prompt,
            cached_tokens=cached,
            cache_write_tokens=written,
            reply_tokens=replied,
            estimated=estimated,
            dollars=dollars,
            price_date=self._price_date,
        )
        if reply.prompt_tokens is not None and row.prompt_bytes >= _ENOUGH_BYTES:
            num_calls, most = self._rates(row.model, row.corpus)
            self._seen[row.model, row.corpus] = num_calls + 1, max(most, reply.prompt_tokens / row.prompt_bytes)
        self._give_back(row, Amount(dollars or 0.0, prompt + replied))

    def abandon(self, ticket: str, *, sent: bool) -> None:
        """No reply came. With `sent` it counts as paid, by its estimate; else all of it comes back."""
        row = self._waiting(ticket)
        if row is None:
            return
        self._ledger.abandon(ticket, paid_unknown=sent)
        self._give_back(row, amount_of(row) if sent else Amount())

    def _waiting(self, ticket: str, model: str = "") -> Ticket | None:
        """The ticket, unless it is settled already: then nothing is counted twice."""
        row = self._ledger.find(ticket)
        if row is None:
            if not self._batch:
                raise StoreError(
                    f"the ledger knows nothing of call {ticket} of {self._product}: its file was moved or replaced "
                    "while the call was under way; bring it back, or what was spent is not known"
                )
            row = self._written_anew(ticket, model)
        return row if row.state == "sent" else None

    def _written_anew(self, ticket: str, model: str) -> Ticket:
        """A row for a call in a batch that outlived its row: a power cut may take the ledger's last seconds.

        Its reply is paid for, so it is kept, and what it says that it used counts.
        """
        self.num_lost += 1
        if self.num_lost == 1:
            log.warning(
                "the ledger has lost calls of the %s that are in batches (its file was moved, or a power cut took its "
                "last rows); they count by what their replies say they used, for %s",
                self._role,
                self._product,
            )
        self._open_ticket(
            ticket=ticket,
            model=model,
            purpose=_LOST,
            task_type=_LOST,
            corpus=_LOST,
            prompt_bytes=0,
            prompt_tokens=0,
            reply_tokens=0,
            dollars=None if self._prices is None else 0.0,
        )
        row = self._ledger.find(ticket)
        assert row is not None, "what was just written is there"
        return row

    def _give_back(self, row: Ticket, used: Amount) -> None:
        """To the purse of the product that the call was for: a batch may bring another one's replies."""
        purse = _purses[self._ledger].get(row.product)
        if purse is not None:
            purse.give_back(amount_of(row), used, waited=not row.batch)

    def _open_ticket(self, **columns: Any) -> str:
        return self._ledger.open_ticket(
            product=self._product, role=self._role, batch=self._batch, price_date=self._price_date, **columns
        )

    def _size(self, request: ChatRequest) -> tuple[int, int]:
        """Bytes of a prompt, and its tokens estimated from above."""
        texts = [message.content for message in request.messages]
        num_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in (*texts, request.reply_schema or ""))
        num_calls, most = self._rates(request.model, request.corpus)
        rate = _TOKENS_PER_BYTE if num_calls < _ENOUGH_CALLS else most * _MARGIN
        return num_bytes, int(num_bytes * rate) + 1 + _TEMPLATE_TOKENS * len(texts)

    def _rates(self, model: str, corpus: str) -> tuple[int, float]:
        """From how many long prompts the provider's own counts are known, and their most tokens a byte.

        By corpus, as languages differ most: what was seen of English says nothing of Chinese.
        """
        key = model, corpus
        if key not in self._seen:
            self._seen[key] = self._ledger.tokens_per_byte(model, corpus, _ENOUGH_BYTES)
        return self._seen[key]


def open_budget(
    ledger: Ledger, product: str, role: str, model: ChatModel, runtime: Runtime, *, batch: bool = False
) -> Budget:
    """The budget that the runtime sets for a role's calls; without caps it only keeps the ledger.

    A model that is served here costs tokens, but no dollars.

    Raises:
        InputError: The price file is wrong, or a cap in dollars is set and the file does not have the model. Nothing
            was spent.
    """
    prices: ModelPrices | None = FREE
    date = ""
    if role in runtime.endpoints or model.checkpoint is None:
        listed = load_prices(runtime.prices)
        capped = runtime.budget_dollars is not None
        prices, date = listed.require(model.model) if capped else listed.of(model.model), listed.date
    return Budget(
        ledger,
        product,
        role,
        prices,
        runtime.budget_dollars,
        runtime.budget_tokens,
        batch=batch,
        price_date=date,
    )
