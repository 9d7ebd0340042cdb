import random

import numpy as np
import pytest

from longalign_core.config.cleaning import CleaningConfig
from longalign_core.corpora.comparing.minhash import similarity, sketch
from longalign_core.corpora.comparing.part_sketches import SketchJob, sketch_part
from longalign_core.corpora.comparing.sketch_index import band_rows
from longalign_core.engine import InProcess, LocalProcesses
from longalign_core.record_files import write_records
from longalign_core.records import Document, Reject
from longalign_core.word_hashes import run_blocks, text_length
from tests.comparison_inputs import compared, document, rejected


def sentence_words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [f"word{draw.randrange(50_000)}" for _ in range(count)]


def edited(words: list[str], num_edits: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    copy = list(words)
    for place in draw.sample(range(len(words)), num_edits):
        copy[place] = f"edit{seed}x{place}"
    return copy


def jaccard(one: list[str], other: list[str]) -> float:
    runs = [{tuple(words[at : at + 5]) for at in range(len(words) - 4)} for words in (one, other)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def runs_of(text: str, span: int) -> list[int]:
    return [int(run) for _, (runs,) in run_blocks(text, (span,)) for run in runs]


def test_runs_case_width_and_punctuation_do_not_count():
    assert runs_of("The quick, brown FOX", 4) == runs_of("the ｑuick brown—fox!", 4)
    assert len(set(runs_of("a b c a b", 4))) == 3
    assert runs_of("a b", 6) == []
    assert runs_of("aß 1 don't", 2) == runs_of("Aß (1) DON T", 2)


def test_runs_chinese_characters_count_half_a_word_each():
    assert text_length("中文 and 字") == 5
    assert len(runs_of("我们一起去公园。散步", 8)) == 2
    assert runs_of("我们，一起去", 4) == runs_of("我们一起去", 4) != []
    assert runs_of("我们一起去", 3)[-1] == runs_of("一起去", 3)[-1] != runs_of("去起一", 3)[-1]


def test_runs_of_a_text_of_many_blocks_are_those_of_its_words():
    words = sentence_words(30_000, seed=1) + list("中文字符") * 5_000
    text = " ".join(words)
    assert len(text) > 3 * 65_536
    for span in (2, 10):
        whole = runs_of(text, span)
        for start in (0, 9_000, 29_995, 31_000):
            piece = runs_of(" ".join(words[start : start + 40]), span)
            at = whole.index(piece[0])
            assert whole[at : at + len(piece)] == piece


@pytest.mark.parametrize(("num_words", "spread"), [(60, 0.06), (400, 0.035), (5_000, 0.035)])
def test_similarity_estimates_jaccard_without_bias_and_as_spread_as_theory_says(num_words, spread):
    errors = []
    for seed in range(120):
        one = sentence_words(num_words, seed)
        other = edited(one, num_words * (1 + seed % 8) // 80, seed)
        estimate = similarity(sketch(" ".join(one)).signature, sketch(" ".join(other)).signature)
        errors.append(estimate - jaccard(one, other))
    assert abs(np.mean(errors)) < 0.012
    assert np.std(errors) < spread


def test_similarity_of_texts_without_anything_in_common_is_zero():
    one, other = (sketch(" ".join(sentence_words(500, seed))) for seed in (1, 2))
    assert similarity(one.signature, other.signature) < 0.02


def test_band_rows_leave_a_thousandth_of_pairs_at_the_threshold_unseen():
    for threshold in (0.3, 0.5, 0.8, 0.95):
        rows = band_rows(threshold)
        assert (1 - threshold**rows) ** (256 // rows) <= 0.001 < (1 - threshold ** (rows + 1)) ** (256 // (rows + 1))
    assert band_rows(1.0) == 256


def test_near_duplicates_against_exact_jaccard_are_found_as_theory_says(tmp_path):
    pairs = {}
    texts = {}
    for seed in range(200):
        one = sentence_words(600, seed)
        other = edited(one, 2 + seed * 40 // 200, seed)[:-1]
        texts |= {f"web:{seed}a": " ".join(one), f"web:{seed}b": " ".join(other)}
        pairs[f"web:{seed}b"] = jaccard(one, other)
    outcome = compared(tmp_path, texts, CleaningConfig(near_duplicates=0.8))
    found = {reject.id: reject for reject in rejected(outcome)}
    assert {one for one, exact in pairs.items() if exact >= 0.87} <= found.keys()  # three standard errors
    assert not {one for one, exact in pairs.items() if exact < 0.72} & found.keys()
    right = sum((exact >= 0.8) == (one in found) for one, exact in pairs.items())
    assert right >= 180
    assert min(pairs.values()) < 0.6 and max(pairs.values()) > 0.95
    assert {reject.reason for reject in found.values()} == {"near-duplicate"}
    for reject in found.values():
        assert reject.id[:-1] + "a" in reject.detail
        value = float(reject.detail.split()[1])
        assert abs(value - pairs[reject.id]) < 0.1


def test_near_duplicates_the_longest_is_kept_then_the_smallest_id(tmp_path):
    words = sentence_words(400, seed=3)
    texts = {
        "a:short": " ".join(words[:380]),
        "b:long": " ".join(words),
        "c:same": " ".join(words).replace(" ", ", "),
        "d:other": " ".join(sentence_words(400, seed=4)),
    }
    outcome = compared(tmp_path, texts, CleaningConfig(near_duplicates=0.8))
    assert [one for one in outcome if isinstance(one, str)] == ["b:long", "d:other"]
    assert all("b:long" in reject.detail for reject in rejected(outcome))


def test_near_duplicates_in_a_chain_are_measured_against_what_is_kept(tmp_path):
    words = sentence_words(1_000, seed=5)
    texts = {f"web:{number}": " ".join(words[90 * number :]) for number in range(3)}
    outcome = compared(tmp_path, texts, CleaningConfig(near_duplicates=0.87))
    assert [one if isinstance(one, str) else (one.id, one.detail.split()[-1]) for one in outcome] == [
        "web:0",
        ("web:1", "web:0"),
        "web:2",
    ]


def test_near_duplicates_of_an_exact_duplicate_name_a_kept_document(tmp_path):
    words = sentence_words(400, seed=6)
    texts = {"a:1": " ".join(words[:-1]), "b:1": " ".join(words), "c:1": " ".join(words[:-1]).upper()}
    outcome = compared(tmp_path, texts, CleaningConfig(near_duplicates=0.8))
    assert outcome[1] == "b:1"
    assert [(one.id, one.reason) for one in rejected(outcome)] == [
        ("a:1", "near-duplicate"),
        ("c:1", "exact duplicate"),
    ]
    assert all("b:1" in one.detail for one in rejected(outcome))


def test_containment_finds_a_part_of_a_book_and_not_another_chapter(tmp_path, test_data):
    books = sorted((test_data / "corpora" / "books").glob("*.txt"))
    emma, other = (book.read_text()[5_000:400_000] for book in books[:2])
    texts = {
        "books:whole": emma,
        "books:beginning": emma[: len(emma) * 3 // 10],
        "books:end": emma[len(emma) * 8 // 10 :],
        "books:next": other[:150_000],
        "books:mixed": emma[100_000:140_000] + other[200_000:300_000],
    }
    outcome = compared(tmp_path, texts, CleaningConfig(containment=0.8))
    assert [(one.id, one.reason) for one in rejected(outcome)] == [
        ("books:beginning", "within another document"),
        ("books:end", "within another document"),
    ]
    assert all("of it is in books:whole" in one.detail for one in rejected(outcome))
    assert compared(tmp_path / "off", texts, CleaningConfig(near_duplicates=0.8)) == sorted(texts)


def test_containment_of_texts_under_a_thousand_words_is_not_measured(tmp_path):
    words = sentence_words(4_000, seed=7)
    texts = {"web:whole": " ".join(words), "web:long": " ".join(words[:2_000]), "web:short": " ".join(words[:500])}
    outcome = compared(tmp_path, texts, CleaningConfig(containment=0.8))
    assert [one.id for one in rejected(outcome)] == ["web:long"]


def test_containment_what_hundreds_of_pages_carry_is_no_reason(tmp_path):
    licence = sentence_words(1_500, seed=8)
    texts = {f"code:{number:03}": " ".join(licence + sentence_words(1_500, 100 + number)) for number in range(40)}
    assert compared(tmp_path, texts, CleaningConfig(containment=0.8)) == sorted(texts)


def test_comparison_texts_without_words_are_kept_or_exact_duplicates(tmp_path):
    texts = {"a:1": "!!!", "a:2": "???", "a:3": "???", "a:4": "word", "a:5": "word word"}
    outcome = compared(tmp_path, texts, CleaningConfig(near_duplicates=0.5, containment=0.5))
    assert [one for one in outcome if isinstance(one, str)] == ["a:1", "a:2", "a:4", "a:5"]


def test_comparison_does_not_depend_on_the_order_of_parts_and_documents(tmp_path):
    texts = {}
    for seed in range(60):
        words = sentence_words(1_200 + seed, seed % 20)
        texts[f"web:{seed:02}"] = " ".join(edited(words, seed % 7 * 5, seed)[: 1_300 - 40 * (seed % 9)])
    config = CleaningConfig(near_duplicates=0.6, containment=0.7)
    first = compared(tmp_path / "first", texts, config)
    shuffled = list(texts.items())
    random.Random(0).shuffle(shuffled)
    assert compared(tmp_path / "second", dict(shuffled), config, num_parts=5) == first
    assert {one.reason for one in first if isinstance(one, Reject)} == {"near-duplicate", "within another document"}


@pytest.mark.slow
def test_sketches_made_by_other_processes_are_the_same_bytes(tmp_path, test_data):
    texts = [file.read_text(errors="replace") for file in sorted((test_data / "needle_haystack").glob("*.txt"))]
    parts = [tmp_path / f"part-{number}.parquet" for number in range(3)]
    for number, part in enumerate(parts):
        write_records(part, [document(f"a:{one}", text) for one, text in enumerate(texts[number::3])], Document)
    config = CleaningConfig(near_duplicates=0.8, containment=0.8)
    made = []
    for engine in (InProcess(), LocalProcesses(2)):
        folder = tmp_path / type(engine).__name__
        jobs = [SketchJob(part, folder / part.name, config, None) for part in parts]
        assert sum(engine.run(sketch_part, jobs, label="clean", look=lambda: None)) == len(texts)
        made.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert made[0] == made[1] and len(made[0]) == 9


def test_real_samples_hold_no_false_near_duplicates(tmp_path, test_data):
    texts = {}
    for file in sorted((test_data / "corpora").glob("books/*.txt")) + sorted((test_data).glob("needle_haystack/*.txt")):
        texts[f"all:{file.name}"] = file.read_text(errors="replace")
    outcome = compared(tmp_path, texts, CleaningConfig(near_duplicates=0.5, containment=0.5))
    assert outcome == sorted(texts)


def test_compare_near_duplicates_in_a_crowd_that_shares_a_frame_are_found(tmp_path):
    frame = sentence_words(240, seed=1)
    pages = {f"web:{number:04}": frame + sentence_words(60, seed=100 + number) for number in range(1_500)}
    copies = {f"{name}-copy": edited(pages[name], 1, seed=number) for number, name in enumerate(list(pages)[::75])}
    texts = {name: " ".join(words) for name, words in (pages | copies).items()}
    outcome = rejected(compared(tmp_path, texts, CleaningConfig(near_duplicates=0.85)))
    assert {one.id.removesuffix("-copy") for one in outcome} == {name.removesuffix("-copy") for name in copies}
    assert len(outcome) == len(copies)
