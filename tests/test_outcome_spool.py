"""Outcomes put aside as they come, read in the documents' order."""

from __future__ import annotations

import random

from longalign_core.records import Conversation, Message, Reject
from longalign_core.stages.outcome_spool import OutcomeSpool


def conversation_of(number: int) -> Conversation:
    return Conversation(
        id=f"books:{number}",
        messages=(Message(role="user", content=f"\n{number} 中文 \x00"), Message(role="assistant", content="a")),
        source="books",
        task_type="general",
        language="en",
        document_id=f"books:{number}",
        more_documents=("books:x",),
        usage={"calls": 2},
        evidence=(0.25, 0.5),
    )


def test_outcome_spool_any_order_of_coming_is_read_by_row_and_nothing_is_left(tmp_path):
    outcomes = {
        row: Reject(id=str(row), source="books", stage="instruct", reason="refusal", detail="a\nb")
        if row % 3 == 0
        else conversation_of(row)
        for row in range(50)
    }
    with OutcomeSpool(tmp_path / "out" / ".spool") as spool:
        for row in random.Random(0).sample(range(50), 50):
            spool.keep(row, outcomes[row])
        assert list(spool.in_order()) == [outcomes[row] for row in range(50)]
        assert spool.num_rejects == 17
    assert list((tmp_path / "out").iterdir()) == []
