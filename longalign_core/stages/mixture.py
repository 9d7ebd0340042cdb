"""Stage `mixture`: the training conversations of a suite."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from longalign_core.config.instruct import InstructionSet, MixtureConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError
from longalign_core.progress import track
from longalign_core.record_files import read_records, write_json_lines
from longalign_core.records import Conversation, Reject
from longalign_core.source_files import list_files
from longalign_core.sources import local_path
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.licences import carry_licences
from longalign_core.stages.outcomes import LONG_BATCH, conversation_row, write_outcomes

if TYPE_CHECKING:
    from longalign_core.instruct.mixture import Draw, DroppedTurns

log = logging.getLogger(__name__)

CONVERSATIONS, JSON_LINES = "conversations.parquet", "conversations.jsonl"


@stage("mixture", version=2)
def mixture(config: MixtureConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Mix long conversations and instruction sets: `conversations.parquet`, `.jsonl`, `rejects.parquet`."""
    from longalign_core.instruct.mixture import Draw, DroppedTurns, num_long_wanted

    num_long = num_long_wanted(config)
    dropped = DroppedTurns()
    drawn: dict[str, int] = {}
    out_dir.mkdir(parents=True, exist_ok=True)
    spool_file = out_dir / ".conversations.spool"
    with spool_file.open("w+b") as spool:
        records = _mix(Draw(spool, config.seed), config, inputs, num_long, dropped, drawn, runtime)
        counts = write_outcomes(records, out_dir, CONVERSATIONS, Conversation, batch=LONG_BATCH)
    spool_file.unlink()
    if not counts["conversations"]:
        raise DataError(
            f"the mixture of suite {config.suite} is empty; add sets to mixture.sets or choose another suite"
        )
    if num_long is not None and drawn["long"] < num_long:
        log.warning(
            "mixture: suite %s wants %d long conversations, there are %d", config.suite, num_long, drawn["long"]
        )
    mixed = read_records(out_dir / CONVERSATIONS, Conversation, batch=LONG_BATCH)
    write_json_lines(out_dir / JSON_LINES, (conversation_row(one) | {"source": one.source} for one in mixed))
    return {
        **counts,
        **drawn,
        "long missing": 0 if num_long is None else num_long - drawn["long"],
        "empty turns dropped": dropped.empty,
        "unanswered turns dropped": dropped.unanswered,
        **carry_licences(inputs["conversations"], out_dir / CONVERSATIONS, out_dir),
    }


def _mix(
    draw: Draw,
    config: MixtureConfig,
    inputs: Inputs,
    num_long: int | None,
    dropped: DroppedTurns,
    drawn: dict[str, int],
    runtime: Runtime,
) -> Iterator[Conversation | Reject]:
    """The stage's outcome: all rejects, then the drawn conversations in their order. Fills `drawn`."""
    long_ones = (
        one
        for folder in inputs["conversations"]
        for one in read_records(folder / CONVERSATIONS, Conversation, LONG_BATCH)
    )
    with track("mixture", total=1 + len(config.sets), unit="sets") as step:
        yield from draw.take(long_ones, num_long)
        drawn["long"] = draw.num_drawn
        step(1)
        for one_set in config.sets:
            before = draw.num_drawn
            yield from draw.take(_read_set(one_set, dropped, runtime), one_set.max_conversations)
            drawn[f"set {one_set.name}"] = draw.num_drawn - before
            step(1, one_set.name)
    yield from draw.shuffled()


def _read_set(one_set: InstructionSet, dropped: DroppedTurns, runtime: Runtime) -> Iterator[Conversation | Reject]:
    from longalign_core.corpora.unpacking import DAMAGE, open_unpacked, raise_unless_damaged, without_compression
    from longalign_core.instruct.mixture import read_instructions

    suffixes = (".jsonl", ".json", ".ndjson")
    files = list_files(local_path(one_set.location, runtime)).files
    wanted = [file for file in files if without_compression(file.relative_path.lower()).endswith(suffixes)]
    if not wanted:
        raise DataError(
            f"the instruction set {one_set.name!r} holds no JSON file; name a file or folder with {', '.join(suffixes)}"
        )
    for file in wanted:
        try:
            with open_unpacked(file) as stream:
                yield from read_instructions(stream, file.relative_path, one_set, dropped)
        except DAMAGE as error:
            raise_unless_damaged(error)
            yield Reject(
                id=f"{one_set.name}:{file.relative_path}",
                source=one_set.name,
                stage="mixture",
                reason="truncated file",
                detail="the file breaks off; what came before is kept",
            )
