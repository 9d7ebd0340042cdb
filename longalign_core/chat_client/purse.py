"""What is left of a cap, and who waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.tickets import Ticket
from longalign_core.errors import BudgetError

log = logging.getLogger(__name__)
# Sums of prices are rounded here: a cap of 1.00 lets through ten calls at 0.10.
_CENT_PARTS = 1e-9


@dataclass(slots=True)
class Amount:
    """Money and tokens."""

    dollars: float = 0.0
    tokens: int = 0

    def add(self, other: Amount, sign: int = 1) -> None:
        """Add, or with `sign` -1 take away."""
        self.dollars += sign * other.dollars
        self.tokens += sign * other.tokens


class Purse:
    """What one product has left, shared by all budgets of the product in this process.

    Attributes:
        spent: What settled calls of all runs cost.
        reserved: What is set aside for calls without a reply.
        num_under_way: Calls that will come back in this run; those in batches do not.
    """

    def __init__(self, ledger: Ledger, product: str, max_dollars: float | None, max_tokens: int | None) -> None:
        """Read what earlier runs spent; calls that a killed run left under way count at their estimates."""
        self.max_dollars = max_dollars
        self.max_tokens = max_tokens
        self.num_under_way = 0
        self._ledger = ledger
        self._product = product
        self._waiters: deque[tuple[Amount, asyncio.Future[None]]] = deque()
        if killed := ledger.close_killed(product):
            log.warning("%s: %d calls of a run that was killed count as paid, by estimate", product, killed)
        whole = ledger.spent(product)
        in_batches = [amount_of(one) for one in ledger.sent(product, batch=True)]
        self.reserved = Amount(sum(one.dollars for one in in_batches), sum(one.tokens for one in in_batches))
        self.spent = Amount(whole.dollars - self.reserved.dollars, whole.tokens - self.reserved.tokens)

    async def take(self, need: Amount, *, wait: bool) -> None:
        """Set an amount aside, waiting in turn for calls under way to give back what they did not use.

        Raises:
            BudgetError: It does not fit, and no call under way can give anything back.
        """
        if not self._waiters and self._fits(need):
            self._reserve(need, wait)
            return
        if not wait or not self.num_under_way:
            raise self._exhausted(need)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((need, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(need, Amount(), waited=True)
            else:
                self._waiters = deque(one for one in self._waiters if one[1] is not turn)
                self._wake()
            raise

    def give_back(self, reserved: Amount, used: Amount, *, waited: bool) -> None:
        """Replace what was set aside for a call by what it used, and let those go on that wait for it."""
        self.reserved.add(reserved, -1)
        self.spent.add(used)
        self.num_under_way -= waited
        self._wake()

    def _reserve(self, need: Amount, waited: bool) -> None:
        self.reserved.add(need)
        self.num_under_way += waited

    def _wake(self) -> None:
        while self._waiters:
            need, turn = self._waiters[0]
            if turn.done():  # cancelled; its own task is yet to notice
                self._waiters.popleft()
            elif self._fits(need):
                self._waiters.popleft()
                self._reserve(need, True)
                turn.set_result(None)
            elif self.num_under_way:
                return
            else:
                self._waiters.popleft()
                turn.set_exception(self._exhausted(need))

    def _fits(self, need: Amount) -> bool:
        tokens = self.spent.tokens + self.reserved.tokens + need.tokens
        if self.max_tokens is not None and tokens > self.max_tokens:
            return False
        dollars = self.spent.dollars + self.reserved.dollars + need.dollars
        return self.max_dollars is None or dollars <= self.max_dollars + _CENT_PARTS

    def _exhausted(self, need: Amount) -> BudgetError:
        spent = Amount(self.spent.dollars, self.spent.tokens)
        spent.add(self.reserved)
        variable, found, cap, more = (
            ("LONGALIGN_BUDGET_TOKENS", f"{spent.tokens:,} tokens", f"{self.max_tokens:,}", f"{need.tokens:,}")
            if self.max_tokens is not None and spent.tokens + need.tokens > self.max_tokens
            else ("LONGALIGN_BUDGET_DOLLARS", f"${spent.dollars:.4f}", f"${self.max_dollars}", f"${need.dollars:.4f}")
        )
        sums = self._ledger.spent(self._product)
        guessed = f" ({sums.num_estimated} of {sums.calls} calls by estimate)" if sums.num_estimated else ""
        return BudgetError(
            f"the model calls of {self._product} have taken {found}{guessed} of {cap}, and the next may take up to "
            f"{more}; raise {variable} and run again: nothing that was paid is lost or paid again"
        )


def amount_of(ticket: Ticket) -> Amount:
    """What a ticket costs, or may cost while it has no reply."""
    return Amount(ticket.dollars or 0.0, ticket.prompt_tokens + ticket.reply_tokens)
