import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longalign_core.corpora.cleaning import clean_text, decode_text, finish_document
from longalign_core.corpora.reading import RawDocument
from longalign_core.records import Document, Reject
from tests.corpora_inputs import corpus


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\r\nb\rc\u2028d\fe", "a\nb\nc\nd\ne"),
        ("e\u0301", "\u00e9"),
        ("a\x00b\x1b[0m\x07c\ufeff", "ab[0mc"),
        ("a \t\n\n\n\n\n\n\nb", "a\n\n\nb"),
        ("\n\n  indented\n\n", "  indented"),
        ("tab\tstays", "tab\tstays"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("soft\u00adhyphen zero\u200bwidth\u2060 \u202eturned\u200f", "softhyphen zerowidth turned"),
        ("no\u00a0break\u2009thin\u3000wide", "no break thin\u3000wide"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469",
        ),
        ("end\u00a0\nnext", "end\nnext"),
    ],
)
def test_clean_text_known_cases_give_one_form(raw, cleaned):
    assert clean_text(raw) == cleaned


@given(
    st.text(
        alphabet=st.sampled_from(
            "ab \t\n\r\f\x00\x85\ufeff\u0301e\u2028\ud800中\xa0\xad\u200b\u200d\u2000\u202e\u3000\x1c"
        )
    )
)
def test_clean_text_any_text_is_stable_and_storable(text):
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert "\n\n\n\n" not in cleaned
    assert not any(line.endswith((" ", "\t")) for line in cleaned.split("\n"))
    assert not any(unicodedata.category(char) == "Cc" and char not in "\n\t" for char in cleaned)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("naïve 中文".encode(), "naïve 中文"),
        (b"\xef\xbb\xbfmark", "mark"),
        ("é\n".encode("utf-16"), "é\n"),
        (b"caf\xe9", "café"),
        (b"\x93quoted\x94", "“quoted”"),
        (b"\x81\xe9", "\x81é"),
        (b"PK\x03\x04\x00\x00", None),
        (bytes([1, 2, 3, 0xFF]) * 10, None),
        (b"", ""),
    ],
)
def test_decode_text_encodings_are_told_apart(data, text):
    assert decode_text(data) == text


def test_finish_document_short_text_is_rejected_with_its_length():
    record = finish_document(corpus("text", min_characters=10), RawDocument("a.txt", " \n123456789\n", origin="a.txt"))
    assert isinstance(record, Reject)
    assert (record.id, record.stage, record.reason) == ("sample:a.txt", "ingest", "too short")
    assert "9 characters" in record.detail


def test_finish_document_name_in_either_normal_form_gives_one_id():
    config = corpus("text")
    ids = {
        finish_document(config, RawDocument(unicodedata.normalize(form, "é.txt"), "text", origin="x")).id
        for form in ("NFC", "NFD")
    }
    assert ids == {"sample:\u00e9.txt"}


def test_finish_document_own_licence_goes_before_the_corpus_licence():
    config = corpus("text", licence="CC0-1.0")
    own = finish_document(config, RawDocument("a", "text", origin="a", licence="MIT"))
    other = finish_document(config, RawDocument("b", "text", origin="b"))
    assert isinstance(own, Document) and own.licence == "MIT"
    assert isinstance(other, Document) and other.licence == "CC0-1.0"


def test_decode_text_chinese_that_is_not_utf8_is_read_as_gb18030():
    assert decode_text("第一章 开始".encode("gb18030"), "zh") == "第一章 开始"
    assert decode_text("第一章 开始".encode(), "zh") == "第一章 开始"
