"""Stage `mixture`: the training conversations of a suite."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from longalign_core.config.mixture import MixtureConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError
from longalign_core.progress import track
from longalign_core.record_files import read_records, write_json_lines
from longalign_core.records import Conversation, Reject, SourceLicence
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.dataset_card import write_dataset_card
from longalign_core.stages.licences import carry_licences
from longalign_core.stages.outcomes import LONG_BATCH, conversation_row, write_outcomes

if TYPE_CHECKING:
    from longalign_core.instruct.draw import Draw
    from longalign_core.stages.instruction_sets import SetReading

log = logging.getLogger(__name__)

CONVERSATIONS, JSON_LINES, REPORT = "conversations.parquet", "conversations.jsonl", "mixture.json"


@dataclass(slots=True, kw_only=True)
class GroupReport:
    """What became of one set, or of the long conversations.

    Attributes:
        read: Records that were looked at.
        rejected: Those that could not be used, by reason; duplicates among them.
        available: Those that could be drawn.
        wanted: How many the suite, the cap or the share asks for.
        drawn: How many there are in the mixture.
        share_wanted: The fraction of the mixture asked for; None where none is.
        share: The fraction of the mixture it is.
        empty_turns_dropped: Assistant turns without text, each with its question.
        unanswered_turns_dropped: Last questions without an answer.
        parts_joined: Parts of split conversations put behind another one.
    """

    name: str
    read: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    available: int = 0
    wanted: int = 0
    drawn: int = 0
    share_wanted: float | None = None
    share: float = 0.0
    empty_turns_dropped: int = 0
    unanswered_turns_dropped: int = 0
    parts_joined: int = 0

    @property
    def missing(self) -> int:
        """How many fewer there are than are wanted."""
        return self.wanted - self.drawn


@stage("mixture", version=3)
def mixture(config: MixtureConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Mix long conversations and instruction sets.

    Gives `conversations.parquet`, `.jsonl`, `rejects.parquet`, `mixture.json` with what became of each
    set, and the dataset card `README.md`. Suites that take no long conversation need no such input.

    Raises:
        InputError: A set's location is not there.
        DataError: A set holds nothing that can be read, or nothing is left to mix.
    """
    from longalign_core.instruct.draw import Draw
    from longalign_core.instruct.mixture import LONG

    groups = {name: GroupReport(name=name) for name in (LONG, *(one.name for one in config.sets))}
    out_dir.mkdir(parents=True, exist_ok=True)
    spool_file = out_dir / ".conversations.spool"
    with spool_file.open("w+b") as spool:
        records = _mix(Draw(spool, config.seed), config, inputs.get("conversations", ()), groups, out_dir, runtime)
        counts = write_outcomes(records, out_dir, CONVERSATIONS, Conversation, batch=LONG_BATCH)
    spool_file.unlink()
    if not counts["conversations"]:
        first = next(iter(read_records(out_dir / "rejects.parquet", Reject)), None)
        raise DataError(
            f"the mixture of suite {config.suite} is empty; "
            + (
                f"all {counts['rejects']} conversations were rejected, the first, {first.id}: {first.reason}"
                if first
                else "add sets to mixture.sets or choose another suite"
            )
        )
    for group in groups.values():
        group.share = round(group.drawn / int(counts["conversations"]), 6)
        if group.missing:
            log.warning("mixture: %d %s conversations are wanted, there are %d", group.wanted, group.name, group.drawn)
    mixed = read_records(out_dir / CONVERSATIONS, Conversation, batch=LONG_BATCH)
    write_json_lines(out_dir / JSON_LINES, (conversation_row(one) | {"source": one.source} for one in mixed))
    sets = [
        SourceLicence(source=one.name, licence=one.licence, redistributable=one.redistributable) for one in config.sets
    ]
    marked = carry_licences(inputs.get("conversations", ()), out_dir / CONVERSATIONS, out_dir, stated=sets)
    _write_report(config, groups.values(), out_dir)
    write_dataset_card(out_dir, title=f"LongAlign training mixture, suite {config.suite}")
    return {**counts, **_counts(groups), **marked}


def _mix(
    draw: Draw,
    config: MixtureConfig,
    long_folders: Iterable[Path],
    groups: Mapping[str, GroupReport],
    out_dir: Path,
    runtime: Runtime,
) -> Iterator[Conversation | Reject]:
    """The stage's outcome: all rejects, then the drawn conversations in their order. Fills the groups."""
    from longalign_core.instruct.mixture import LONG, wanted_counts
    from longalign_core.stages.instruction_sets import SetReading, read_set

    long_ones = (
        one for folder in long_folders for one in read_records(folder / CONVERSATIONS, Conversation, LONG_BATCH)
    )
    with track("mixture", total=1 + len(config.sets), unit="sets") as step:
        yield from _added(draw, groups[LONG], long_ones)
        step(1)
        for one_set in config.sets:
            reading = SetReading()
            yield from _added(draw, groups[one_set.name], read_set(one_set, reading, out_dir, runtime))
            _note(reading, groups[one_set.name])
            groups[one_set.name].share_wanted = one_set.share
            step(1, one_set.name)
    wanted = wanted_counts(config, {name: group.available for name, group in groups.items()})
    for name, group in groups.items():
        group.wanted, group.drawn = wanted[name], min(wanted[name], group.available)
    yield from draw.draw(wanted)
    yield from draw.shuffled()


def _added(draw: Draw, group: GroupReport, records: Iterable[Conversation | Reject]) -> Iterator[Reject]:
    rejected: Counter[str] = Counter()
    for reject in draw.add(group.name, records):
        rejected[reject.reason] += 1
        yield reject
    group.rejected = dict(sorted(rejected.items()))
    group.available = draw.num_available(group.name)
    group.read = group.available + rejected.total()


def _note(reading: SetReading, group: GroupReport) -> None:
    group.empty_turns_dropped = reading.dropped.empty
    group.unanswered_turns_dropped = reading.dropped.unanswered
    group.parts_joined = reading.num_joined


def _write_report(config: MixtureConfig, groups: Iterable[GroupReport], out_dir: Path) -> None:
    rows = [asdict(group) | {"missing": group.missing} for group in groups]
    report = {"suite": config.suite, "seed": config.seed, "groups": rows}
    (out_dir / REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))


def _counts(groups: Mapping[str, GroupReport]) -> Counts:
    from longalign_core.instruct.mixture import LONG

    short = [group for name, group in groups.items() if name != LONG]
    return {
        LONG: groups[LONG].drawn,
        **{f"set {group.name}": group.drawn for group in short},
        "long missing": groups[LONG].missing,
        **{f"set {group.name} missing": group.missing for group in short if group.missing},
        "empty turns dropped": sum(group.empty_turns_dropped for group in short),
        "unanswered turns dropped": sum(group.unanswered_turns_dropped for group in short),
    }
