import random
from pathlib import Path

import pytest

from longalign_core.config.cleaning import CleaningConfig
from longalign_core.corpora.comparing.contamination import Protection, protect_text, read_protected, write_protected
from tests.comparison_inputs import compared, rejected

QUESTION = "Which of the four methods in the paper needs the fewest labelled examples, and by what factor does it win?"
CHINESE = "请问这篇论文提出的四种方法之中，哪一种方法所需要的标注样本最少，并且它比其他方法究竟好多少倍？"


def words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [f"word{draw.randrange(50_000)}" for _ in range(count)]


def around(text: str, seed: int = 0) -> str:
    return " ".join([*words(300, seed), text, *words(300, seed + 1)])


def protection(*texts: str, kind: str | None = None, share: float = 0.1) -> Protection:
    found = [protect_text(f"suite:{number}", text, 13, kind) for number, text in enumerate(texts)]  # type: ignore[arg-type]
    return Protection([one for one in found if one is not None], share)


@pytest.mark.parametrize("text", [QUESTION, CHINESE])
def test_question_or_a_run_of_it_is_found_in_a_long_document(text):
    protected = protection(text)
    found = protected.find(around(text.upper().replace(",", " --")))
    assert found is not None and found.protected_id == "suite:0" and found.share == 1.0
    assert found.num_words == 13
    run = " ".join(text.split()[2:15]) if text == QUESTION else text[10:38]
    assert "," in run or "，" in run
    assert protected.find(around(run)) is not None
    assert protected.find(around(run[: len(run) // 2])) is None
    assert protected.find(around("")) is None


def test_question_of_fewer_words_than_a_run_is_found_as_a_whole():
    needle = "The password of the lighthouse keeper is marmalade."
    protected = protection(needle, QUESTION)
    found = protected.find(around(needle))
    assert found is not None and (found.num_runs, found.num_words, found.protected_id) == (1, 8, "suite:0")
    assert protected.find(around("The password of the lighthouse keeper is orange marmalade.")) is None


def test_text_of_fewer_than_eight_words_is_not_protected():
    assert protect_text("a", "What is this paper about?", 13) is None
    assert protect_text("a", "这篇论文讲什么", 13) is None
    assert protect_text("a", "", 13) is None
    assert protect_text("a", "one two three four five", 5) is not None


def test_long_text_is_found_by_share_and_not_by_a_quotation():
    benchmark = words(4_000, seed=1)
    protected = protection(" ".join(benchmark))
    quoting = " ".join(words(5_000, seed=2) + benchmark[1_000:1_100] + words(5_000, seed=3))
    assert protected.find(quoting) is None
    holding = " ".join(words(20_000, seed=2) + benchmark[1_000:1_600] + words(20_000, seed=3))
    found = protected.find(holding)
    assert found is not None and found.share == pytest.approx(588 / 3_988)
    piece = " ".join(benchmark[2_000:2_300])
    assert protected.find(piece).share == 1.0  # type: ignore[union-attr]
    assert protection(" ".join(benchmark), share=0.2).find(holding) is None


def test_text_in_two_protected_ones_counts_for_the_one_that_is_there_most():
    protected = protection(QUESTION + " " + " ".join(words(100, seed=4)), QUESTION)
    assert protected.find(around(QUESTION)).protected_id == "suite:1"  # type: ignore[union-attr]


def test_protected_texts_come_back_from_their_file_which_does_not_hold_them(tmp_path):
    texts = [protect_text("a", QUESTION, 13), protect_text("b", CHINESE, 13, "long")]
    assert write_protected(tmp_path / "protected.parquet", [one for one in texts if one]) == 2
    for one, back in zip(texts, read_protected(tmp_path / "protected.parquet"), strict=True):
        assert one is not None
        assert (back.id, back.kind, back.span) == (one.id, one.kind, one.span)
        assert back.runs.tolist() == one.runs.tolist()
    content = (tmp_path / "protected.parquet").read_bytes()
    assert b"labelled" not in content and "论文".encode() not in content


def protected_file(folder: Path, *texts: str) -> Path:
    found = (protect_text(f"suite:{number}", text, 13) for number, text in enumerate(texts))
    write_protected(folder / "protected.parquet", (one for one in found if one))
    return folder / "protected.parquet"


def test_comparison_contaminated_documents_go_first_and_take_no_other_along(tmp_path):
    clean = words(600, seed=5)
    texts = {
        "web:1": " ".join(clean),
        "web:2": " ".join([*clean, QUESTION]),  # longer, so it would be the near-duplicate that is kept
        "web:3": " ".join([*clean, QUESTION]).upper(),
    }
    config = CleaningConfig(near_duplicates=0.8, decontamination_words=13)
    outcome = compared(tmp_path, texts, config, protected=protected_file(tmp_path, QUESTION))
    assert outcome[0] == "web:1"
    assert [(one.id, one.reason) for one in rejected(outcome)] == [("web:2", "contaminated"), ("web:3", "contaminated")]
    assert "suite:0" in rejected(outcome)[0].detail


def test_real_samples_are_not_contaminated_by_essays_but_their_copies_are(tmp_path, test_data):
    essays = [file.read_text(errors="replace") for file in sorted((test_data / "needle_haystack").glob("*.txt"))]
    books = {f"books:{file.name}": file.read_text() for file in (test_data / "corpora" / "books").glob("*.txt")}
    copies = {f"web:{number}": essay[len(essay) // 3 :] for number, essay in enumerate(essays[:5])}
    config = CleaningConfig(decontamination_words=13)
    outcome = compared(tmp_path, books | copies, config, protected=protected_file(tmp_path, *essays))
    assert [one for one in outcome if isinstance(one, str)] == sorted(books)
    assert [one.id for one in rejected(outcome)] == sorted(copies)
