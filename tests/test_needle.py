from __future__ import annotations

import pytest

from longalign_core.errors import DataError
from longalign_core.evaluation.needle import ExactMatch, Haystack, Needle
from longalign_core.evaluation.suites import Question
from longalign_core.evaluation.window import PromptWindow
from longalign_core.sources import list_files
from tests.evaluation_inputs import NEEDLE, needle_config
from tests.tiny_model import tiny_tokenizer


@pytest.fixture(scope="module", params=[300, 400])
def window(tmp_path_factory, request):
    return PromptWindow.open(tiny_tokenizer(tmp_path_factory.mktemp("t"), vocabulary=request.param), 20_000)


def test_needle_stands_at_its_depth_between_sentences_with_any_tokenizer(window, test_data):
    depths = tuple(depth / 10 for depth in range(11))
    config = needle_config(test_data, lengths=(4000,), depths=depths, haystack=str(test_data / "needle_haystack"))
    for question in Needle(config).questions(window):
        document = question.message.rpartition("\n\n")[0]
        before, found, _ = document.partition(NEEDLE)
        assert found
        assert question.message.count(NEEDLE) == 1
        depth = len(window.spans(before)) / len(window.spans(document.replace(NEEDLE, "")))
        assert depth == pytest.approx(question.attributes["depth"], abs=0.05)
        ended = before.rstrip().rstrip("\"')]’”")
        assert question.attributes["depth"] in (0, 1) or ended[-1] in ".!?" or before.endswith("\n")


def test_needle_prompts_have_their_length_in_the_candidates_tokens(window, tmp_path):
    config = needle_config(tmp_path, lengths=(150, 300, 1500), depths=(0.0, 0.3, 1.0))
    for question in Needle(config).questions(window):
        length = question.attributes["length"]
        assert length - 12 <= window.count(question.message) <= length


def test_needle_grid_is_asked_longest_first_and_deep_to_shallow(window, tmp_path):
    config = needle_config(tmp_path, lengths=(150, 400), depths=(0.0, 1.0, 0.5))
    ids = [question.id for question in Needle(config).questions(window)]
    assert ids == ["400@1", "400@0.5", "400@0", "150@1", "150@0.5", "150@0"]


def test_haystack_is_joined_in_name_order_and_repeated_when_short(window, tmp_path):
    for name, text in (("b", "Second text."), ("a", "First text."), ("c", "Third text.")):
        (tmp_path / f"{name}.txt").write_text(text)
    haystack = Haystack.read(tmp_path, window, 200)
    assert haystack.text.startswith("First text.\n\nSecond text.\n\nThird text.\n\nFirst text.")
    assert len(haystack.spans) >= 200


def test_haystack_leaves_out_what_no_address_knows(window, tmp_path):
    folder, outside = tmp_path / "hay", tmp_path / "outside.txt"
    outside.write_text("Outside text.")
    for name in ("a.txt", "sub/b.txt", ".hidden.txt", ".git/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"Text of {name}.")
    (folder / "leads out.txt").symlink_to(outside)
    (folder / "stays.txt").symlink_to(folder / "a.txt")
    haystack = Haystack.read(folder, window, 1)
    assert haystack.text == "Text of a.txt.\n\nText of a.txt.\n\nText of sub/b.txt."
    assert {"a.txt", "stays.txt", "sub/b.txt"} <= {name for _, name in list_files(folder)}


def test_haystack_of_chinese_sentences_is_split_at_their_ends(window, tmp_path):
    (tmp_path / "a.txt").write_text("今天天气很好。我们去公园吃三明治。" * 20)
    text, place = Haystack.read(tmp_path, window, 100).with_needle("针在这里。", 0.5, 400)
    assert text[:place].rstrip()[-1] == "。"
    assert 0.4 < place / len(text) < 0.6


def test_haystack_without_text_is_refused(window, tmp_path):
    with pytest.raises(DataError, match="no text"):
        Haystack.read(tmp_path, window, 10)


@pytest.mark.parametrize(("lengths", "reason"), [((30_000,), "window holds"), ((10,), "too short")])
def test_needle_length_that_cannot_be_is_refused(window, tmp_path, lengths, reason):
    with pytest.raises(DataError, match=reason):
        Needle(needle_config(tmp_path, lengths=lengths)).questions(window)


@pytest.mark.parametrize(
    ("reply", "expected", "score"),
    [
        ("Eat a sandwich in Dolores Park.", "eat a sandwich", 1),
        ("You should eat\n a *sandwich*!", "eat a sandwich", 1),
        ("sandwich: a eat", "eat a sandwich", 0),
        ("eat a sandwiches", "eat a sandwich", 0),
        ("", "eat a sandwich", 0),
        ("答案是三明治。", "三明治", 1),
        ("答案是明治三", "三明治", 0),
        ("ＥＡＴ it", "eat it", 1),
    ],
)
def test_exact_match_compares_words_in_order(reply, expected, score):
    question = Question(id="1", message="", query="", reference=expected)
    assert ExactMatch().score(question, reply) == score


def test_needle_whose_expected_answer_has_no_words_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected"):
        Needle(needle_config(tmp_path).model_copy(update={"expected": "..."}))
