"""The mixture: conversations of an instruction set, and how many of each set are wanted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from math import floor

import orjson

from longalign_core.config.mixture import InstructionSet, MixtureConfig
from longalign_core.errors import DataError
from longalign_core.instruct.instruction_rows import DroppedTurns, TextOf, UnusableError, alternating, messages_of
from longalign_core.instruct.split_conversations import SplitConversations
from longalign_core.records import Conversation, Message, Reject

LONG = "long"
"""Group of the long conversations; no instruction set has this name."""


def num_long_wanted(config: MixtureConfig) -> int | None:
    """How many long conversations the suite takes; None for all."""
    return config.num_long


def conversations_of(
    rows: Iterable[tuple[str, object]],
    one_set: InstructionSet,
    dropped: DroppedTurns,
    text_of: TextOf,
    parts: SplitConversations | None = None,
) -> Iterator[Conversation | Reject]:
    """Conversations of an instruction set's rows; see `messages_of` for their forms.

    Ids are made from the content, so that they do not depend on files or order.

    Args:
        rows: Name and value of each; an `UnusableError` in place of a value that could not be read.
        one_set: The set they belong to.
        dropped: Counts what is taken out of conversations that are kept.
        text_of: What the text of a turn stands for.
        parts: Joins split conversations, which are given last; None leaves them separate.
    """
    for name, row in rows:
        try:
            if isinstance(row, UnusableError):
                raise row
            messages = messages_of(row, text_of)
            assert isinstance(row, dict)
            if parts is None or not parts.take(row, messages):
                yield _conversation(messages, row.get("model"), one_set, dropped)
        except UnusableError as error:
            yield _reject(name, one_set, error)
    for name, model, messages in parts.joined() if parts else ():
        try:
            yield _conversation(messages, model, one_set, dropped)
        except UnusableError as error:
            yield _reject(name, one_set, error)


def wanted_counts(config: MixtureConfig, available: Mapping[str, int]) -> dict[str, int]:
    """How many conversations of each group make the mixture; a group may have fewer.

    Groups without a share give all they have, up to their cap. With shares, the size of the mixture follows
    from them: they are what the shares leave over. Where every group has a share, the mixture is as large as
    the scarcest allows. The parts are rounded by largest remainder, so that they come to the whole.

    Args:
        config: Suite, caps and shares.
        available: Conversations of each group, `LONG` and the sets by name.

    Raises:
        DataError: The groups without a share are empty, so that shares have nothing to stand beside.
    """
    caps = {LONG: config.num_long} | {one.name: one.max_conversations for one in config.sets}
    shares = config.shares
    most = {name: have if (cap := caps[name]) is None else min(have, cap) for name, have in available.items()}
    wanted = {name: most[name] for name in available if name not in shares}
    if config.num_long is not None and LONG in wanted:
        wanted[LONG] = config.num_long
    if not shares:
        return wanted
    total = sum(shares.values())
    if total == 1:
        return wanted | _scarcest(shares, most)
    rest = sum(most[name] for name in wanted)
    if not rest:
        raise DataError(
            "the mixture's shares have nothing to stand beside: there is no long conversation and no set without a "
            "share has any; add some, or make the shares come to 1"
        )
    size = floor(rest / (1 - total) + Fraction(1, 2))
    return wanted | _parts({name: share / total for name, share in shares.items()}, size - rest)


def _scarcest(shares: Mapping[str, Fraction], most: Mapping[str, int]) -> dict[str, int]:
    """Parts of the largest whole of which no group has too few."""
    size = min(floor((most[name] + 1) / share) for name, share in shares.items())
    parts = _parts(shares, size)
    while any(part > most[name] for name, part in parts.items()):
        size -= 1
        parts = _parts(shares, size)
    return parts


def _parts(shares: Mapping[str, Fraction], size: int) -> dict[str, int]:
    """A number divided by shares that come to 1, the largest remainders rounded up; ties by name."""
    exact = {name: share * size for name, share in shares.items()}
    parts = {name: floor(part) for name, part in exact.items()}
    by_remainder = sorted(parts, key=lambda name: (parts[name] - exact[name], name))
    for name in by_remainder[: size - sum(parts.values())]:
        parts[name] += 1
    return parts


def _conversation(
    messages: list[Message], model: object, one_set: InstructionSet, dropped: DroppedTurns
) -> Conversation:
    turns = alternating(messages, dropped)
    digest = hashlib.sha256(orjson.dumps(turns)).hexdigest()[:16]
    return Conversation(
        id=f"{one_set.name}:{digest}",
        messages=turns,
        source=one_set.name,
        task_type="chat",
        language=one_set.language,
        # FastChat's splitter writes "" where the export names no model.
        model=model if isinstance(model, str) and model else None,
        licence=one_set.licence,
    )


def _reject(name: str, one_set: InstructionSet, error: UnusableError) -> Reject:
    return Reject(
        id=f"{one_set.name}:{name}", source=one_set.name, stage="mixture", reason=error.reason, detail=error.detail
    )
