import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longalign_core.config.selection import SelectionConfig
from longalign_core.corpora.candidates import bucket_of
from longalign_core.corpora.lengths import DocumentLength
from longalign_core.corpora.quotas import even_quotas
from longalign_core.corpora.selection import draw, rejects_of


def config(**fields) -> SelectionConfig:
    return SelectionConfig(**{"tokenizer": "t", "min_tokens": 10, "max_tokens": 49, "num_buckets": 4, **fields})


def length(name: str, num_tokens: int | None, language: str = "en", source: str = "web") -> DocumentLength:
    return DocumentLength(
        id=f"{source}:{name}", source=source, language=language, num_tokens=num_tokens, num_bytes=(num_tokens or 1) * 4
    )


def drawn_per_bucket(selection, one_config) -> list[int]:
    counts = [0] * one_config.num_buckets
    for num_tokens in selection.num_tokens.values():
        counts[bucket_of(num_tokens, one_config)] += 1
    return counts


@given(st.lists(st.integers(0, 12), max_size=8), st.integers(0, 60))
def test_even_quotas_any_shortfall_equals_dealing_one_by_one(available, wanted):
    dealt = [0] * len(available)
    while sum(dealt) < wanted and dealt != available:
        open_ones = [index for index in range(len(available)) if dealt[index] < available[index]]
        # One round gives every open bucket one more; a last round that does not reach all serves the longest.
        for index in open_ones[-(wanted - sum(dealt)) :]:
            dealt[index] += 1
    assert even_quotas(available, wanted) == dealt


def test_bucket_of_every_length_lies_in_the_range_the_table_states():
    for low, high, buckets in ((10, 49, 4), (8192, 65536, 7), (5, 7, 9), (3, 3, 1)):
        one = config(min_tokens=low, max_tokens=high, num_buckets=buckets)
        cells = draw([], one).cells
        assert (cells[0].min_tokens, cells[-1].max_tokens) == (low, high)
        for num_tokens in {*range(low, min(high, low + 60) + 1), high, (low + high) // 2}:
            cell = cells[bucket_of(num_tokens, one)]
            assert cell.min_tokens <= num_tokens <= cell.max_tokens


def test_draw_is_even_over_buckets_though_most_documents_are_short():
    one = config(num_documents=20)
    lengths = [length(f"short{n}", 10 + n % 10) for n in range(500)] + [length(f"d{n}", 20 + n % 30) for n in range(60)]
    selection = draw(lengths, one)
    assert drawn_per_bucket(selection, one) == [5, 5, 5, 5]
    assert selection.num_missing == 0


def test_draw_shortfall_of_a_bucket_goes_to_the_others():
    one = config(num_documents=20)
    lengths = [length(f"a{n}", 10 + n % 30) for n in range(90)] + [length("rare1", 40), length("rare2", 49)]
    selection = draw(lengths, one)
    assert drawn_per_bucket(selection, one) == [6, 6, 6, 2]
    assert [(cell.eligible, cell.wanted, cell.drawn) for cell in selection.cells] == [
        (30, 5, 6), (30, 5, 6), (30, 5, 6), (2, 5, 2),
    ]  # fmt: skip


def test_draw_too_few_documents_takes_all_and_says_how_many_lack():
    one = config(num_documents=20)
    selection = draw([length("a", 10), length("b", 49), length("c", 9), length("d", 50), length("e", None)], one)
    assert selection.num_tokens == {"web:a": 10, "web:b": 49}
    assert selection.num_missing == 18


@pytest.mark.parametrize(
    ("share", "num_chinese", "expected"),
    [(0.1, 50, 2), (0.1, 1, 1), (0.5, 50, 10), (0.0, 50, 0), (1.0, 50, 20), (1.0, 5, 5), (None, 0, 0)],
)
def test_draw_chinese_share_is_kept_as_far_as_there_are_documents(share, num_chinese, expected):
    one = config(num_documents=20, chinese_share=share)
    lengths = [length(f"e{n}", 10 + n % 40) for n in range(100)]
    lengths += [length(f"z{n}", 10 + n % 40, "zh") for n in range(num_chinese)]
    selection = draw(lengths, one)
    assert sum(name.startswith("web:z") for name in selection.num_tokens) == expected
    assert len(selection.num_tokens) == (expected if share == 1.0 else 20)
    assert sum(cell.wanted for cell in selection.cells) == 20


def test_draw_depends_on_seed_and_documents_alone():
    one = config(num_documents=12)
    lengths = [length(f"d{n}", 10 + n * 7 % 40) for n in range(80)]
    shuffled = random.Random(1).sample(lengths, len(lengths))
    moved = [length(one.id.split(":")[1], one.num_tokens, source="web") for one in shuffled]
    first = draw(lengths, one)
    assert draw(shuffled, one) == first == draw(moved, one)
    assert set(draw(lengths, config(num_documents=12, seed=1)).num_tokens) != set(first.num_tokens)


def test_draw_one_document_more_changes_at_most_one_place():
    one = config(num_documents=12)
    lengths = [length(f"d{n}", 10 + n * 7 % 40) for n in range(80)]
    before, after = draw(lengths, one), draw([*lengths, length("new", 30)], one)
    assert len(set(before.num_tokens) - set(after.num_tokens)) <= 1


def test_rejects_of_every_document_is_drawn_or_has_a_reason():
    one = config(num_documents=2)
    lengths = [length("s", 9), length("l", 50), length("n", None), *(length(f"m{n}", 20) for n in range(5))]
    selection = draw(lengths, one)
    rejects = list(rejects_of(lengths, selection, one))
    assert {reject.id for reject in rejects} | set(selection.num_tokens) == {one.id for one in lengths}
    assert sorted(reject.reason for reject in rejects) == ["not drawn"] * 3 + ["too long"] + ["too short"] * 2
    assert {reject.id: reject.detail for reject in rejects}["web:n"] == "4 bytes"
