import hashlib

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.corpora.comparing.duplicates import first_equals, text_digest


def test_text_digest_ignores_case_and_white_space_alone():
    same = ["The  Text\n", "the text", "THE\tTEXT", " the\u2003text"]
    assert len({text_digest(one) for one in same}) == 1
    others = ["thetext", "the text.", "the\0text", ""]
    assert len({text_digest(one) for one in [*others, same[0]]}) == 5


def test_text_digest_of_text_longer_than_a_block_is_that_of_its_words():
    for padding in range(65_530, 65_540):
        for middle in ("word", " word", "word \n ", "ßẞ", "\n"):
            text = " " * 3 + "A" * padding + middle + "b" * 70_000 + " \n" * 70_000 + "End "
            words = " ".join(text.casefold().split())
            assert text_digest(text) == hashlib.blake2b(words.encode(), digest_size=16).digest()


@settings(deadline=None)  # the first call waits for arrow to be loaded
@given(st.lists(st.sampled_from(["a", "A", "a ", "B b", "b  b", "ß", "SS", "é", "É"]), max_size=30))
def test_first_equals_gives_the_slow_answer(texts):
    folded = [" ".join(text.casefold().split()) for text in texts]
    digests = pa.array([text_digest(text) for text in texts], pa.binary(16))
    assert first_equals(digests).tolist() == [folded.index(text) for text in folded]
