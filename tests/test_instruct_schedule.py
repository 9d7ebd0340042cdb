"""The schedule: exact numbers, whatever is rejected and whichever reply comes first."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.errors import InputError
from longalign_core.instruct.schedule import Entry, Place, Schedule


@dataclass(frozen=True)
class Kind:
    name: str
    share: float = 1.0
    corpora: tuple[str, ...] | None = None
    num_documents: int = 1


FOUR = tuple(Kind(name) for name in ("general", "summary", "reasoning", "extraction"))


def entries_of(sizes: dict[tuple[str, int], int]) -> list[Entry]:
    rows = [(source, bucket, n) for (source, bucket), size in sizes.items() for n in range(size)]
    return [
        Entry(row, f"{source}:{bucket}:{n}", source, "en", bucket, bucket + n % 100)
        for row, (source, bucket, n) in enumerate(rows)
    ]


def schedule_of(entries: list[Entry], wanted: int | None, kinds: tuple[Kind, ...] = FOUR, seed: int = 0) -> Schedule:
    return Schedule(entries, kinds, num_wanted=wanted, max_tokens=65_536, seed=seed)


def carry_out(schedule: Schedule, rejected: set[str], order: random.Random) -> tuple[list[Place], list[Place]]:
    """Settle everything in a random order; returns the accepted places and all that were begun."""
    waiting = schedule.begin()
    begun, accepted = list(waiting), []
    while waiting:
        place = waiting.pop(order.randrange(len(waiting)))
        good = place.entry.id not in rejected
        if good:
            accepted.append(place)
        further = schedule.settle(place, accepted=good)
        waiting += further
        begun += further
    return accepted, begun


SIZES = st.dictionaries(
    st.tuples(st.sampled_from(["arxiv", "books", "wudao"]), st.sampled_from([8192, 20000, 50000])),
    st.integers(1, 30),
    min_size=1,
)


@given(SIZES, st.integers(0, 250), st.integers(0, 5))
def test_schedule_nothing_rejected_counts_are_exact_within_one_in_every_stratum(sizes, wanted, seed):
    entries = entries_of(sizes)
    schedule = schedule_of(entries, wanted, seed=seed)
    accepted, begun = carry_out(schedule, set(), random.Random(0))
    assert accepted == begun or len(accepted) == len(begun)
    assert len(accepted) == min(wanted, len(entries))
    by_stratum = Counter((place.entry.source, place.entry.bucket) for place in accepted)
    for stratum, size in sizes.items():
        share = min(wanted, len(entries)) * size / len(entries)
        assert abs(by_stratum[stratum] - share) < 1
        types = Counter(p.task_type for p in accepted if (p.entry.source, p.entry.bucket) == stratum)
        assert all(abs(types[kind.name] - by_stratum[stratum] / 4) < 1 for kind in FOUR)
    totals = Counter(place.task_type for place in accepted)
    assert all(abs(totals[kind.name] - len(accepted) / 4) <= 1 for kind in FOUR)


@settings(max_examples=200)
@given(SIZES, st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
def test_schedule_any_rejects_give_exactly_the_number_or_all_that_is_good(sizes, wanted_share, bad_share, seed):
    entries = entries_of(sizes)
    draw = random.Random(seed)
    rejected = {entry.id for entry in entries if draw.random() < bad_share}
    wanted = round(wanted_share * len(entries))
    schedule = schedule_of(entries, wanted)
    accepted, begun = carry_out(schedule, rejected, draw)
    assert len(accepted) == min(wanted, len(entries) - len(rejected)) == schedule.num_accepted
    assert len({place.entry.id for place in begun}) == len(begun)
    assert {entry.id for entry in schedule.spare()} == {e.id for e in entries} - {p.entry.id for p in begun}
    # Nothing is asked about in vain: all that was begun and is not in the product was rejected.
    assert {place.entry.id for place in begun} - {place.entry.id for place in accepted} <= rejected


@settings(max_examples=100)
@given(SIZES, st.integers(0, 1000))
def test_schedule_order_of_replies_does_not_change_what_is_asked(sizes, seed):
    entries = entries_of(sizes)
    rejected = {entry.id for entry in entries if random.Random(entry.id).random() < 0.3}
    wanted = len(entries) * 2 // 3
    first = carry_out(schedule_of(entries, wanted), rejected, random.Random(seed))
    second = carry_out(schedule_of(random.Random(1).sample(entries, len(entries)), wanted), rejected, random.Random(9))
    assert set(first[0]) == set(second[0])
    assert set(first[1]) == set(second[1])


def test_schedule_without_a_number_asks_once_about_every_document():
    entries = entries_of({("books", 8192): 10})
    accepted, begun = carry_out(schedule_of(entries, None), {"books:8192:3"}, random.Random(0))
    assert (len(accepted), len(begun)) == (9, 10)


def test_schedule_rejected_document_is_replaced_by_one_of_its_stratum_and_type():
    entries = entries_of({("books", 8192): 20, ("arxiv", 8192): 20})
    schedule = schedule_of(entries, 16)
    first = schedule.begin()[0]
    (second,) = schedule.settle(first, accepted=False)
    assert (second.entry.source, second.task_type) == (first.entry.source, first.task_type)
    assert schedule.settle(second, accepted=True) == []


def test_schedule_stratum_that_runs_out_is_made_up_for_by_others_and_told():
    entries = entries_of({("books", 8192): 4, ("arxiv", 8192): 40})
    rejected = {entry.id for entry in entries if entry.source == "books"}
    schedule = schedule_of(entries, 22)
    accepted, _ = carry_out(schedule, rejected, random.Random(0))
    assert len(accepted) == 22
    told = schedule.shortfalls()
    assert sum(wanted - got for source, *_, wanted, got in told if source == "books") == 2
    assert sum(got - wanted for source, *_, wanted, got in told if source == "arxiv") == 2


def test_schedule_type_for_some_corpora_is_asked_only_there():
    kinds = (*FOUR, Kind("code", corpora=("github",)))
    entries = entries_of({("github", 8192): 20, ("books", 8192): 20})
    accepted, _ = carry_out(schedule_of(entries, None, kinds), set(), random.Random(0))
    assert {place.entry.source for place in accepted if place.task_type == "code"} == {"github"}
    assert sum(place.task_type == "code" for place in accepted) == 4


def test_schedule_shares_weigh_the_types():
    kinds = (Kind("general", share=3.0), Kind("summary"))
    accepted, _ = carry_out(schedule_of(entries_of({("books", 8192): 40}), None, kinds), set(), random.Random(0))
    assert Counter(place.task_type for place in accepted) == {"general": 30, "summary": 10}


def test_schedule_several_documents_fit_together_and_are_of_one_corpus():
    kinds = (*FOUR, Kind("compare", num_documents=3))
    entries = entries_of({("books", 8192): 10, ("books", 20000): 10, ("books", 60000): 10, ("arxiv", 8192): 10})
    accepted, _ = carry_out(schedule_of(entries, None, kinds), set(), random.Random(0))
    several = [place for place in accepted if place.more]
    assert several
    for place in several:
        together = [place.entry, *place.more]
        assert len({entry.id for entry in together}) == 3
        assert {entry.source for entry in together} == {place.entry.source}
        assert sum(entry.num_tokens for entry in together) <= 65_536
    assert {place.entry.bucket for place in several} == {8192, 20000}


def test_schedule_corpus_without_a_task_type_is_refused():
    kinds = (Kind("code", corpora=("github",)),)
    with pytest.raises(InputError, match="no task type can be asked about the documents of corpus 'books'"):
        schedule_of(entries_of({("books", 8192): 1}), None, kinds)


def test_schedule_types_that_do_not_fit_beside_their_documents_are_named():
    entries = entries_of({("books", 8_192): 20, ("books", 60_000): 20, ("alone", 8_192): 1})
    schedule = schedule_of(entries, 30, (*FOUR, Kind("compare", num_documents=2), Kind("code", corpora=("books",))))
    assert sorted(schedule.unsuited) == [("alone", 8_192, "compare"), ("books", 60_000, "compare")]
    assert schedule_of(entries, 30).unsuited == []
