import pytest

from longalign_core.corpora.cleaning import finish_document
from longalign_core.corpora.reading import RawDocument
from longalign_core.records import Document, Reject
from longalign_core.text_language import identify_language
from tests.corpora_inputs import corpus

ENGLISH = "It was a bright cold day in spring, and all the clocks of the town were striking at once.\n"
CHINESE = "春天的一个早晨，阳光明媚而寒冷，城里所有的钟同时敲响，人们纷纷走上街头。\n"
GERMAN = "Es war ein heller, kalter Tag im Frühling, und alle Uhren der Stadt schlugen gleichzeitig.\n"


@pytest.mark.parametrize(("text", "code"), [(ENGLISH, "en"), (CHINESE, "zh"), (GERMAN, "de"), (ENGLISH.upper(), "en")])
def test_identify_language_plain_texts_are_told_apart(text, code):
    assert identify_language(text).code == code


def test_identify_language_foreign_preface_does_not_decide():
    assert identify_language(GERMAN * 60 + CHINESE * 2000).code == "zh"


@pytest.mark.parametrize("text", ["", "12 34\n" * 1000, "ok"])
def test_identify_language_too_little_text_is_undecided(text):
    assert identify_language(text) is None


def test_finish_document_language_not_listed_is_rejected_with_code_and_score():
    config = corpus("text", language="en", languages=["en", "zh"])
    kept = finish_document(config, RawDocument("a", CHINESE * 5, "a"))
    assert isinstance(kept, Document) and kept.language == "zh"
    left_out = finish_document(config, RawDocument("b", GERMAN * 5, "b"))
    assert isinstance(left_out, Reject) and left_out.reason == "other language"
    assert left_out.detail.startswith("de (score 0.") or left_out.detail.startswith("de (score 1.")


def test_finish_document_undecided_or_code_keeps_the_language_of_the_corpus():
    config = corpus("text", language="en", languages=["en"])
    undecided = finish_document(config, RawDocument("a", "12 34 " * 100, "a"))
    code = finish_document(config, RawDocument("b", GERMAN * 5, "b", is_code=True))
    assert (undecided.language, code.language) == ("en", "en")
