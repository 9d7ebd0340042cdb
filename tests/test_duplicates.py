import random

from hypothesis import given
from hypothesis import strategies as st

from longalign_core.corpora.duplicates import find_duplicates
from longalign_core.records import Document, Reject, text_sha256


def document(document_id: str, text: str) -> Document:
    source = document_id.split(":")[0]
    return Document(id=document_id, text=text, source=source, language="en", origin="", sha256=text_sha256(text))


def test_find_duplicates_case_and_white_space_are_folded_and_smallest_id_kept():
    documents = [
        document("web:9", "The  Text\n"),
        document("books:b", "the text"),
        document("books:a2", "another text"),
        document("books:c", "THE\tTEXT"),
        document("web:1", "thetext"),
    ]
    outcome = list(find_duplicates(documents))
    assert [one for one in outcome if isinstance(one, str)] == ["books:a2", "books:b", "web:1"]
    rejects = [one for one in outcome if isinstance(one, Reject)]
    assert [(one.id, one.source, one.stage, one.reason) for one in rejects] == [
        ("books:c", "books", "clean", "exact duplicate"),
        ("web:9", "web", "clean", "exact duplicate"),
    ]
    assert all("books:b" in one.detail for one in rejects)


@given(st.lists(st.sampled_from(["a", "A", "a ", "b", "B b", "b  b", "ß", "SS", "é", "É"]), max_size=30), st.integers())
def test_find_duplicates_any_order_gives_the_slow_answer(texts, seed):
    documents = [document(f"c{number % 3}:{number:02}", text) for number, text in enumerate(texts)]
    kept: dict[str, str] = {}
    for one in sorted(documents, key=lambda one: one.id):
        kept.setdefault(" ".join(one.text.casefold().split()), one.id)
    expected = [
        one.id if one.id in kept.values() else ("reject", one.id) for one in sorted(documents, key=lambda d: d.id)
    ]
    random.Random(seed).shuffle(documents)
    outcome = [one if isinstance(one, str) else ("reject", one.id) for one in find_duplicates(documents)]
    assert outcome == expected
