"""What `longalign spending` shows: the local ledger, and which products are finished."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from longalign_core.chat_client.ledger import Ledger
from longalign_core.chat_client.spending import GROUPINGS, ledger_file, spending_rows
from longalign_core.chat_client.tickets import Grouping
from longalign_core.errors import InputError
from longalign_core.execution import Context

_DEFAULT: tuple[Grouping, ...] = ("product", "task_type", "corpus", "purpose")


def spending_groups(context: Context, by: Sequence[str] | None, product: str | None) -> dict[str, list[dict[str, Any]]]:
    """Rows of `spending_rows` under the name of each grouping; those by product say whether it is in the store.

    Args:
        context: Its scratch folder holds the ledger.
        by: Names of groupings; None or nothing for the usual ones.
        product: Only of this address; None for all.

    Raises:
        InputError: There is no such grouping.
    """
    groupings = [_grouping(name) for name in by] if by else _DEFAULT
    file = ledger_file(context.runtime.scratch)
    if not file.is_file():
        return {name: [] for name in groupings}
    with Ledger(file) as ledger:
        groups: dict[str, list[dict[str, Any]]] = {name: spending_rows(ledger, name, product) for name in groupings}
    for row in groups.get("product", ()):
        row["artifact"] = "finished" if context.store.find(row["group"]) else "not in the store"
    return groups


def _grouping(name: str) -> Grouping:
    for known in GROUPINGS:
        if name == known:
            return known
    near = difflib.get_close_matches(name, GROUPINGS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"spending is not counted by {name!r}; allowed: {', '.join(GROUPINGS)}{hint}")
