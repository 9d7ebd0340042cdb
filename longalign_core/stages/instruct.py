"""Selected documents to conversations, through the generator."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from longalign_core.chat_client.calls import CallFailedError, given_up_error
from longalign_core.config.instruct import InstructConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.instruct.online import Outcome
from longalign_core.instruct.schedule import NOT_NEEDED, Entry, Place, Schedule
from longalign_core.progress import track
from longalign_core.record_files import RecordRows, read_records, write_json_lines
from longalign_core.records import Conversation, Document, Reject
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.dataset_card import write_dataset_card
from longalign_core.stages.licences import carry_licences
from longalign_core.stages.outcome_spool import OutcomeSpool
from longalign_core.stages.outcomes import REJECTS, conversation_row, write_outcomes

log = logging.getLogger(__name__)
# A document of 64k tokens is about a quarter of a megabyte, and so is its conversation.
_BATCH = 16
DOCUMENTS, SELECTION = "documents.parquet", "selection.json"
CONVERSATIONS, JSON_LINES = "conversations.parquet", "conversations.jsonl"
REPORT, PAGE, SPENDING = "instruct.json", "report.html", "spending.json"


@dataclass(frozen=True, slots=True)
class _DocumentFacts:
    """The columns that conversations are scheduled by."""

    id: str
    source: str
    language: str
    num_tokens: int | None


@stage("instruct", version=3)
def instruct(config: InstructConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Write conversations about documents, and for each document without one the reason, in the documents' order.

    Replies are kept as they come and are never asked for again, by whichever run on whichever machine.

    Raises:
        InputError: No task type fits a corpus; or no document fits the generator's window.
        EndpointError: The generator cannot be reached, refuses the key, or does not know the model,
            at the start or in the middle; or, after everything was asked, some calls were given up
            for reasons that pass.
        BudgetError: The spending cap was reached.
        WaitingError: Batches were submitted whose replies are still to come.
    """
    from longalign_core.stages.asking import Asking

    (selected,) = inputs["documents"]
    entries, max_tokens = _read_entries(selected)
    _check_window(entries, config)
    schedule = Schedule(
        entries, config.tasks, num_wanted=config.num_conversations, max_tokens=max_tokens, seed=config.seed
    )
    for corpus, shortest, name in schedule.unsuited:
        log.warning(
            "task type %s is not asked about documents of %s from %d tokens on: not all of them find others that fit "
            "beside them; the other types take its part",
            name, corpus, shortest,
        )  # fmt: skip
    given_up: Counter[str] = Counter()
    places: dict[str, Place] = {}
    calls: Counts = {}
    with OutcomeSpool(out_dir / ".outcomes.jsonl") as spool:
        with track("instruct", total=schedule.num_wanted, unit="conversations") as step:

            def keep(place: Place, outcome: Outcome) -> None:
                places[place.entry.id] = place
                if isinstance(outcome, CallFailedError):
                    given_up[outcome.reason] += 1
                    return
                spool.keep(place.entry.row, outcome)
                rejected = spool.num_rejects
                step(isinstance(outcome, Conversation), f"{rejected} rejected" if rejected else "")

            if entries:
                documents = RecordRows(selected / DOCUMENTS, Document)
                calls = Asking(schedule, documents, config, runtime, keep).run(out_dir / SPENDING)
        if given_up:
            raise given_up_error({"generator": list(given_up.elements())})
        records = _with_spare(spool, schedule)
        counts = write_outcomes(records, out_dir, CONVERSATIONS, Conversation, batch=_BATCH)
    conversations = read_records(out_dir / CONVERSATIONS, Conversation, batch=_BATCH)
    write_json_lines(out_dir / JSON_LINES, (conversation_row(one) for one in conversations))
    licences = carry_licences((selected,), out_dir / CONVERSATIONS, out_dir)
    _report(schedule, places, config, out_dir)
    write_dataset_card(out_dir, title="Long instruction data")
    by_type = Counter(one.task_type for one in read_records(out_dir / CONVERSATIONS, _TaskType))
    missing = {} if config.num_conversations is None else {"missing": schedule.num_wanted - schedule.num_accepted}
    if missing.get("missing"):
        log.warning(
            "instruct: %d conversations were wanted and %d accepted: the documents ran out",
            schedule.num_wanted,
            schedule.num_accepted,
        )
    return {
        "documents": len(entries),
        **counts,
        **{f"conversations: {task.name}": by_type[task.name] for task in config.tasks},
        **missing,
        **calls,
        **licences,
    }


def _report(schedule: Schedule, places: dict[str, Place], config: InstructConfig, out_dir: Path) -> None:
    from longalign_core.instruct.report import InstructReport, read_spending

    edges = sorted({place.entry.bucket for place in places.values()})
    report = InstructReport.gather(
        read_records(out_dir / CONVERSATIONS, Conversation, batch=_BATCH),
        read_records(out_dir / REJECTS, Reject),
        {name: (place.task_type, _bucket(place, edges), place.entry.num_tokens) for name, place in places.items()},
        wanted=config.num_conversations,
        spending=read_spending(out_dir / SPENDING),
        seed=config.seed,
    )
    shortfalls = [
        dict(zip(("corpus", "min_tokens", "task_type", "wanted", "accepted"), row, strict=True))
        for row in schedule.shortfalls()
    ]
    unsuited = [dict(zip(("corpus", "min_tokens", "task_type"), row, strict=True)) for row in schedule.unsuited]
    told = orjson.dumps(
        {**report.as_json(), "shortfalls": shortfalls, "unsuited": unsuited}, option=orjson.OPT_INDENT_2
    )
    (out_dir / REPORT).write_bytes(told)
    (out_dir / PAGE).write_text(report.as_html(), encoding="utf-8")


def _bucket(place: Place, edges: list[int]) -> str:
    above = [edge for edge in edges if edge > place.entry.bucket]
    return f"{place.entry.bucket:,} to {above[0] - 1:,}" if above else f"{place.entry.bucket:,} and more"


@dataclass(frozen=True, slots=True)
class _TaskType:
    task_type: str


def _with_spare(spool: OutcomeSpool, schedule: Schedule) -> Iterator[Conversation | Reject]:
    yield from spool.in_order()
    for entry in sorted(schedule.spare(), key=lambda one: one.row):
        detail = f"{schedule.num_wanted} conversations were wanted"
        yield Reject(id=entry.id, source=entry.source, stage="instruct", reason=NOT_NEEDED, detail=detail)


def _read_entries(selected: Path) -> tuple[list[Entry], int]:
    """What the schedule knows of the documents, and the most tokens that one was allowed to have."""
    lowest, most = [0], 0
    if (file := selected / SELECTION).is_file():
        cells = orjson.loads(file.read_bytes())["cells"]
        lowest = sorted({int(cell["min_tokens"]) for cell in cells}) or [0]
        most = max((int(cell["max_tokens"]) for cell in cells), default=0)
    entries = [
        Entry(
            row=row,
            id=one.id,
            source=one.source,
            language=one.language,
            bucket=max((edge for edge in lowest if edge <= (one.num_tokens or 0)), default=lowest[0]),
            num_tokens=one.num_tokens or 0,
        )
        for row, one in enumerate(read_records(selected / DOCUMENTS, _DocumentFacts, batch=8_192))
    ]
    return entries, max(most, *(one.num_tokens for one in entries), 0)


def _check_window(entries: list[Entry], config: InstructConfig) -> None:
    """Say before anything is spent how many documents cannot be asked about."""
    room = config.generator.context_tokens - config.generator.max_tokens
    num_long = sum(one.num_tokens > room for one in entries)
    advice = (
        f"of {config.generator.context_tokens} tokens, less {config.generator.max_tokens} for the reply; take a model "
        "with a longer one, or lower selection.max_tokens"
    )
    if num_long and num_long == len(entries):
        raise InputError(f"none of the {num_long} documents fits the generator's window {advice}")
    if num_long:
        log.warning("%d of %d documents are longer than the generator's window %s", num_long, len(entries), advice)
