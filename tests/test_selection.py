import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longalign_core.config.loading import load_recipe
from longalign_core.config.selection import SelectionConfig
from longalign_core.corpora.selecting.candidates import bucket_of
from longalign_core.corpora.selecting.lengths import DocumentLength
from longalign_core.corpora.selecting.selection import draw, rejects_of
from longalign_core.corpora.selecting.shortfalls import sentences, shortfalls


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


def drawn_by(selection) -> dict[str, int]:
    return {name: one.drawn for name, one in selection.by_source.items()}


def plenty(source: str, number: int = 80, language: str = "en") -> list[DocumentLength]:
    return [length(f"{language}{n}", 10 + n % 40, language, source) for n in range(number)]


def test_draw_corpus_shares_with_enough_documents_are_exact_and_lengths_stay_even():
    one = config(num_documents=40, corpus_shares={"a": 0.5, "b": 0.3, "c": 0.2})
    selection = draw(plenty("a") + plenty("b") + plenty("c") + plenty("d"), one)
    assert drawn_by(selection) == {"a": 20, "b": 12, "c": 8}
    assert drawn_per_bucket(selection, one) == [10] * 4
    assert shortfalls(selection) == ()
    assert sentences(selection) == ["Every number that was wanted was drawn."]


def test_draw_corpus_without_share_gives_none_and_its_documents_say_why():
    one = config(num_documents=40, corpus_shares={"a": 1.0})
    lengths = plenty("a", 12) + plenty("other")
    selection = draw(lengths, one)
    assert drawn_by(selection) == {"a": 12}
    assert {one.reason for one in rejects_of(lengths, selection, one)} == {"corpus has no share"}
    assert selection.num_missing == 28


def test_draw_even_lengths_come_before_corpus_shares():
    one = config(num_documents=20, corpus_shares={"short": 0.5, "long": 0.5})
    # Of `short` there are lengths 10 to 19 only: one of four ranges.
    lengths = [length(f"s{n}", 10 + n % 10, source="short") for n in range(50)] + plenty("long")
    selection = draw(lengths, one)
    assert drawn_per_bucket(selection, one) == [5, 5, 5, 5]
    assert drawn_by(selection) == {"long": 15, "short": 5}


def test_draw_languages_come_before_corpus_shares():
    one = config(num_documents=20, chinese_share=0.1, corpus_shares={"zh": 0.5, "en": 0.5})
    selection = draw(plenty("zh", language="zh") + plenty("en"), one)
    assert drawn_by(selection) == {"en": 18, "zh": 2}
    assert any(line.startswith("Of the corpus zh, 10 were wanted and 2 drawn") for line in sentences(selection))


DOCUMENTS = st.lists(
    st.tuples(st.integers(5, 55), st.sampled_from(["en", "zh"]), st.sampled_from(["a", "b", "c"])), max_size=60
)


@given(DOCUMENTS, st.integers(1, 40), st.sampled_from([None, 0.1, 0.5]), st.booleans())
def test_draw_any_documents_keeps_its_promises(documents, num_documents, chinese_share, has_shares):
    shares = {"a": 0.6, "b": 0.4} if has_shares else None
    one = config(num_documents=num_documents, chinese_share=chinese_share, corpus_shares=shares)
    lengths = [length(str(n), tokens, language, source) for n, (tokens, language, source) in enumerate(documents)]
    selection = draw(lengths, one)
    known = {one.id: one for one in lengths}
    eligible = [
        one for one in lengths if 10 <= (one.num_tokens or 0) <= 49 and (not has_shares or one.source in ("a", "b"))
    ]
    usable = (
        eligible
        if chinese_share is None or round(num_documents * chinese_share)
        else [one for one in eligible if one.language != "zh"]
    )
    assert len(selection.num_tokens) == min(num_documents, len(usable))
    assert set(selection.num_tokens) <= {one.id for one in usable}
    if chinese_share is not None:
        num_chinese = sum(known[name].language == "zh" for name in selection.num_tokens)
        has = sum(one.language == "zh" for one in usable)
        target = round(num_documents * chinese_share)
        assert num_chinese == max(min(target, has), len(selection.num_tokens) - (len(usable) - has))
    without = draw(lengths if not has_shares else eligible, config(**one.model_dump() | {"corpus_shares": None}))
    assert drawn_per_bucket(selection, one) == drawn_per_bucket(without, one)
    for fall in shortfalls(selection):
        assert fall.wanted - fall.drawn == fall.lost + sum(gift.num_documents for gift in fall.given_to)
    assert sum(fall.lost for fall in shortfalls(selection)) == selection.num_missing
    assert draw(random.Random(1).sample(lengths, len(lengths)), one) == selection


@pytest.mark.parametrize("shares", [{"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 1.0, "b": 0.0}])
def test_corpus_shares_that_are_no_whole_are_refused(shares):
    with pytest.raises(ValueError, match=r"make them sum to 1|leave out corpora that give none"):
        config(corpus_shares=shares)


def test_corpus_shares_of_a_corpus_the_recipe_lacks_are_refused():
    recipe = load_recipe(Path(__file__).parent.parent / "deployments/recipes/demo.yaml", [])
    name = recipe.corpora[0].name
    selection = recipe.selection.model_copy(update={"corpus_shares": {name: 0.5, "wudoa": 0.5}})
    with pytest.raises(ValueError, match="names wudoa, which is no corpus"):
        type(recipe)(**{**dict(recipe), "selection": selection})
