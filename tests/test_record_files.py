"""Records in groups."""

from __future__ import annotations

from longalign_core.record_files import in_groups


def test_in_groups_hands_a_list_on_when_it_is_large_enough_and_loses_none():
    words = ["aa", "b", "cccc", "d", "", "e"]
    assert list(in_groups(words, len, 3)) == [["aa", "b"], ["cccc"], ["d", "", "e"]]
    assert list(in_groups([], len, 3)) == []
