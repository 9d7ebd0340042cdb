"""Write what a stage keeps and what it rejects from one stream, holding neither in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import orjson

from longalign_core.record_files import write_records
from longalign_core.records import Conversation, Reject
from longalign_core.stage import Counts

REJECTS = "rejects.parquet"
LONG_BATCH = 32
"""Rows a batch of records that may have megabytes each."""
SHORT_BATCH = 8_192
"""Rows a batch of records of a few words."""

Kept = TypeVar("Kept")


def write_outcomes(
    records: Iterable[Kept | Reject], out_dir: Path, name: str, kind: type[Kept], *, batch: int
) -> Counts:
    """Write the kept records to the file `name` and the others to `rejects.parquet`.

    Args:
        records: Both, mixed.
        out_dir: Folder of both files.
        name: File of the kept records; its stem names their count.
        kind: Their class.
        batch: Rows of them held in memory.

    Returns:
        Counts of both, and of each reason.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    spool = out_dir / ".rejects.jsonl"
    with spool.open("wb") as aside:

        def kept_ones() -> Iterator[Kept]:
            for record in records:
                if isinstance(record, Reject):
                    aside.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
                else:
                    yield record

        num_kept = write_records(out_dir / name, kept_ones(), kind, batch=batch)
    with spool.open("rb") as lines:
        counts = write_rejects(out_dir, (Reject(**orjson.loads(line)) for line in lines))
    spool.unlink()
    return {Path(name).stem: num_kept, **counts}


def write_rejects(out_dir: Path, rejects: Iterable[Reject]) -> Counts:
    """Write `rejects.parquet`; returns how many, in all and for each reason."""
    reasons: Counter[str] = Counter()

    def counted() -> Iterator[Reject]:
        for reject in rejects:
            reasons[reject.reason] += 1
            yield reject

    write_records(out_dir / REJECTS, counted(), Reject, batch=SHORT_BATCH)
    return {"rejects": reasons.total(), **{f"rejects: {reason}": count for reason, count in sorted(reasons.items())}}


def conversation_row(conversation: Conversation) -> dict[str, Any]:
    """A conversation as a JSON row in the form of LongAlign-10k, with where it came from."""
    return {
        "messages": [{"role": message.role, "content": message.content} for message in conversation.messages],
        "id": conversation.id,
        "document_id": conversation.document_id,
        "task_type": conversation.task_type,
        "model": conversation.model,
        "usage": conversation.usage,
        "licence": conversation.licence,
        **({"more_documents": list(conversation.more_documents)} if conversation.more_documents else {}),
    }
