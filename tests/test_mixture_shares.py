"""How many conversations of each set make the mixture."""

from __future__ import annotations

import logging

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longalign_core.config.mixture import InstructionSet, MixtureConfig
from longalign_core.errors import DataError
from longalign_core.instruct.mixture import LONG, wanted_counts
from tests.mixture_setup import Room, chat


def config(suite: str = "0k", **sets: dict[str, object]) -> MixtureConfig:
    return MixtureConfig(
        suite=suite, sets=tuple(InstructionSet(name=name, location="x", **fields) for name, fields in sets.items())
    )


def test_wanted_counts_shares_stand_beside_the_long_conversations():
    mixed = config("all", a={"share": 0.5}, b={"share": 0.4})
    assert wanted_counts(mixed, {LONG: 10, "a": 999, "b": 999}) == {LONG: 10, "a": 50, "b": 40}


def test_wanted_counts_a_share_too_large_for_its_set_stays_the_wanted_one():
    mixed = config("5k", a={"share": 0.9})
    assert wanted_counts(mixed, {LONG: 5_000, "a": 7}) == {LONG: 5_000, "a": 45_000}


def test_wanted_counts_suite_that_is_short_of_long_ones_measures_shares_by_what_there_is():
    mixed = config("10k", a={"share": 0.5})
    assert wanted_counts(mixed, {LONG: 30, "a": 999}) == {LONG: 10_000, "a": 30}


def test_wanted_counts_shares_that_come_to_one_end_with_the_scarcest_set():
    thirds = config(a={"share": 0.3}, b={"share": 0.7})
    # 0.3 of 23 is 6.9 and 0.7 of it 16.1: 7 and 16. Of 24 it would take 17 of the second.
    assert wanted_counts(thirds, {LONG: 0, "a": 100, "b": 16}) == {LONG: 0, "a": 7, "b": 16}


def test_wanted_counts_caps_hold_for_sets_with_and_without_a_share():
    mixed = config(a={"share": 0.5, "max_conversations": 3}, b={"share": 0.5})
    assert wanted_counts(mixed, {LONG: 0, "a": 100, "b": 100}) == {LONG: 0, "a": 3, "b": 3}
    mixed = config(a={"share": 0.5}, b={"max_conversations": 4})
    assert wanted_counts(mixed, {LONG: 0, "a": 100, "b": 100}) == {LONG: 0, "a": 4, "b": 4}


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(1, 3_000),
    st.integers(0, 60),
)
def test_wanted_counts_come_to_the_whole_and_none_is_off_by_one(parts, num_long, rest_percent):
    shares = {f"s{place}": {"share": part / 1_000} for place, part in enumerate(parts)}
    mixed = config("all", **shares)
    wanted = wanted_counts(mixed, {LONG: num_long, **dict.fromkeys(shares, 10**9)})
    total = sum(wanted.values())
    assert abs(total - num_long / (1 - sum(parts) / 1_000)) <= 0.5 + 1e-9
    for name, fields in shares.items():
        of_the_sets = (total - num_long) * fields["share"] / (sum(parts) / 1_000)
        assert abs(wanted[name] - of_the_sets) < 1


def test_wanted_counts_shares_beside_nothing_raise_one_sentence():
    with pytest.raises(DataError, match="nothing to stand beside"):
        wanted_counts(config("all", a={"share": 0.5}), {LONG: 0, "a": 5})


@pytest.mark.parametrize(
    ("suite", "sets", "said"),
    [
        ("all", {"a": {"share": 1.0}}, "leave no room"),
        ("0k", {"a": {"share": 0.6}, "b": {"share": 0.3}}, "come to 0.9; make them come to 1"),
        ("0k", {"a": {"share": 0.6}, "b": {"share": 0.4}, "c": {}}, "leave no room"),
        ("0k", {"long": {}}, "named long"),
    ],
)
def test_config_shares_that_cannot_be_met_are_refused(suite, sets, said):
    with pytest.raises(ValueError, match=said):
        config(suite, **sets)


def test_mixture_with_shares_is_exact_and_says_what_is_missing(tmp_path, caplog):
    room = Room(tmp_path)
    sets = (
        room.set_of([chat(number) for number in range(50)], "many", share=0.5),
        room.set_of([chat(number) for number in range(100, 104)], "few", share=0.25),
    )
    with caplog.at_level(logging.WARNING):
        counts, mixed, rejects = room.run(5, suite="all", sets=sets)
    assert (counts["long"], counts["set many"], counts["set few"], counts["set few missing"]) == (5, 10, 4, 1)
    assert "set many missing" not in counts
    assert "5 few conversations are wanted, there are 4" in caplog.text
    assert [one.reason for one in rejects] == ["not drawn"] * 40
    groups = orjson.loads((room.out / "mixture.json").read_bytes())["groups"]
    told = {one["name"]: (one["available"], one["wanted"], one["drawn"], one["missing"]) for one in groups}
    assert told == {"long": (5, 5, 5, 0), "many": (50, 10, 10, 0), "few": (4, 5, 4, 1)}
    assert {one["name"]: one["share"] for one in groups}["many"] == round(10 / 19, 6)
    assert len(mixed) == 19
