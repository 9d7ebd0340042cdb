import json
import random

import pytest

from longalign_core.corpora.cleaning import finish_document
from longalign_core.corpora.prose.quality import Failure, gopher_failure, keep_prose_lines
from longalign_core.corpora.prose.repetition import duplicate_ngram_share, number_words, top_ngram_share
from longalign_core.corpora.reading import RawDocument
from longalign_core.records import Document, Reject
from longalign_core.source_files import list_files
from tests.corpora_inputs import corpus, read_all

WORDS = [f"{first}{second}" for first in "bdfghklmnprst" for second in ("an", "eat", "ill", "ove", "und")]


def prose(num_words: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    sentences = [" ".join(draw.choices([*WORDS, "the", "of", "and"], k=10)) + "." for _ in range(num_words // 10)]
    return "\n\n".join(" ".join(sentences[start : start + 5]) for start in range(0, len(sentences), 5))


def test_ngram_shares_tiny_case_counts_characters_by_hand():
    words = number_words(["aa", "b", "aa", "b", "aa", "ccc"])  # 11 characters
    assert top_ngram_share(words, 2) == pytest.approx(2 * 3 / 11)
    assert duplicate_ngram_share(words, 2) == pytest.approx((2 + 1 + 2) / 11)
    assert duplicate_ngram_share(words, 4) == 0


def test_gopher_failure_long_prose_passes():
    assert gopher_failure(prose(200_000), "en") is None


@pytest.mark.parametrize(
    ("text", "reason", "rule"),
    [
        ("the end of it", "quality: length", "words 4, fewer than 50"),
        (prose(500).replace(" ", ""), "quality: length", "words"),
        ("the of " + "1234 " * 100, "quality: symbols", "with a letter"),
        ("the of " + "a " * 200, "quality: words", "mean word length"),
        (prose(300).replace(" ", " # "), "quality: symbols", "hashes to words"),
        ("\n".join("- " + line for line in prose(500).split("\n\n")), "quality: lists", "bullet"),
        ("\n".join(f"{line}.." for line in prose(500).split("\n\n")), "quality: ellipses", "ellipsis"),
        ("\n".join([prose(100)] * 5), "quality: repetition", "duplicate lines"),
        (" ".join(["the cat of a very old house sat down slowly"] * 40), "quality: repetition", "gram"),
        (prose(500).replace("the", "x").replace("of", "x").replace("and", "x"), "quality: stop words", "stop words"),
    ],
)
def test_gopher_failure_poor_text_names_rule_and_value(text, reason, rule):
    failure = gopher_failure(text, "en")
    assert failure is not None and failure.reason == reason
    assert rule in failure.detail


def test_gopher_failure_real_chinese_passes_and_repeated_does_not(test_data):
    rows = json.loads((test_data / "corpora" / "wudao" / "part-0000.json").read_text())
    assert [gopher_failure(row["content"], "zh") for row in rows] == [None] * len(rows)
    assert gopher_failure("今天的天气不错，" * 100, "zh").reason == "quality: repetition"


def test_gopher_real_books_pass(test_data):
    documents, rejects = read_all(list_files(test_data / "corpora" / "books").files, corpus("text", quality=["gopher"]))
    assert (len(documents), rejects) == (3, [])


def test_keep_prose_lines_drops_menus_and_policies():
    page = (
        "Home\nAbout us\nThe first sentence of this page stands here.\nShort one.\n\n"
        "Please enable JavaScript to see all of this page.\nThe second sentence of this page follows it.\n"
        "We have a privacy policy that you should read.\n她站在窗前，看着外面的雨慢慢停了下来。"
    )
    assert keep_prose_lines(page) == (
        "The first sentence of this page stands here.\n\n"
        "The second sentence of this page follows it.\n她站在窗前，看着外面的雨慢慢停了下来。"
    )


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("function f() { return 1; }", "curly bracket"),
        ("Lorem ipsum dolor sit amet, and so on.", "lorem ipsum"),
        ("One whole sentence stands on this page.", "1 sentences"),
    ],
)
def test_keep_prose_lines_page_that_is_none_is_left_out(text, detail):
    failure = keep_prose_lines(text)
    assert isinstance(failure, Failure) and detail in failure.detail


def test_finish_document_rules_are_for_prose_only():
    config = corpus("text", quality=["gopher", "c4"])
    code = "if x { y(); }\n" * 30
    assert isinstance(finish_document(config, RawDocument("a", code, "a")), Reject)
    assert isinstance(finish_document(config, RawDocument("a", code, "a", is_code=True)), Document)
