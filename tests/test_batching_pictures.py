"""The two pictures: every sequence, room, piece of work and wait that there is, and no other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from longalign_core.batching.opening import Opening
from longalign_core.batching.pictures import PAPER, class_labels, percent, pieces_of, shown_time, spans
from longalign_core.batching.simulate import simulate_batches

OPTIONS = {"capacity": 100, "packs_per_step": 2, "ranks": 2}


def opening(costs: list[list[float]], *, slots_per_step: int = 2, is_whole: bool = True) -> Opening:
    return Opening(
        strategy="naive",
        packs=((1,),),
        costs=np.array(costs),
        slots_per_step=slots_per_step,
        is_whole=is_whole,
        utilisation=1.0,
        idle=0.0,
    )


@pytest.fixture
def lengths_file(tmp_path: Path) -> Path:
    np.save(tmp_path / "lengths.npy", np.array([50, 50, 100, 25, 75, 100]))
    return tmp_path / "lengths.npy"


def fills(svg: str) -> Counter[tuple[str, bool]]:
    """Shapes by colour and by whether they have an edge; those of the legend have none."""
    root = ElementTree.fromstring(svg)
    styles = [one.get("style", "") for one in root.iter("{http://www.w3.org/2000/svg}path")]
    found = [(re.search(r"fill: (#\w+)", style), "stroke: #ffffff" in style) for style in styles]
    return Counter((fill.group(1), edged) for fill, edged in found if fill)


def test_picture_of_a_small_plan_has_a_bar_for_everything(lengths_file, tmp_path):
    # Packs of 100, 100, 75 + 25 and 50 + 50, in two steps of two ranks. Attention makes the packs
    # of two sequences the cheaper ones, so where one meets a pack of 100 its rank waits.
    (row,) = simulate_batches(lengths_file, strategy="bfd", picture=tmp_path / "p.svg", **OPTIONS)
    svg = (tmp_path / "p.svg").read_text()
    found = fills(svg)
    assert found[PAPER.accent, True] == 6
    # Four pieces of work; four classes of length and one of work in the legends.
    assert found[PAPER.accent, False] == 4 + 5
    assert row["idle"] > 0
    assert found[PAPER.warn, False] - 1 in (1, 2)
    assert "bfd: ranks wait" in svg
    assert "100 % full" in svg


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_picture_of_all_strategies_is_written(lengths_file, tmp_path, ending):
    file = tmp_path / f"p.{ending}"
    simulate_batches(lengths_file, picture=file, tflops=100.0, **OPTIONS)
    content = file.read_bytes()
    assert len(content) > 10_000
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}[ending])
    if ending != "png":
        text = content.decode()
        assert all(f"{name}: ranks wait" in text for name in ("naive", "sorted", "longalign", "bfd", "balanced"))
        assert "(seconds)" in text


def test_page_names_the_file_and_escapes_it(lengths_file, tmp_path):
    file = lengths_file.rename(tmp_path / "<b>.npy")
    simulate_batches(file, picture=tmp_path / "p.html", **OPTIONS)
    page = (tmp_path / "p.html").read_text()
    assert "&lt;b&gt;.npy" in page
    assert "<b>" not in page


def test_picture_twice_is_the_same_bytes(lengths_file, tmp_path):
    for name in ("a.html", "b.html", "a.svg", "b.svg"):
        simulate_batches(lengths_file, picture=tmp_path / name, **OPTIONS)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_spans_rank_works_then_waits_for_the_slowest():
    busy, idle, ends = spans(opening([[1, 3], [2, 2], [4, 0]], slots_per_step=4), end=100)
    assert busy == [[(0, 1), (3, 2), (5, 4)], [(0, 3), (3, 2)]]
    assert idle == [[(1, 2)], [(5, 4)]]
    assert ends == [5]


def test_spans_stop_at_the_end_of_the_picture():
    busy, idle, ends = spans(opening([[1, 3], [2, 2]]), end=2)
    assert (busy, idle, ends) == ([[(0, 1)], [(0, 2)]], [[(1, 1)], []], [])


def test_shown_time_ends_where_a_strategy_is_not_known_further():
    short, long = opening([[1, 1]]), opening([[3, 3], [4, 4]])
    assert shown_time([short, long], full_pack=10) == 7, "the whole epoch of each"
    assert shown_time([short, long], full_pack=0.5) == 4, "eight packs"
    assert shown_time([opening([[1, 1]], is_whole=False), long], full_pack=10) == 1


def test_pieces_sequences_too_short_to_be_seen_are_one():
    assert pieces_of((300, 150, 1, 1, 1), 1000) == [(300, 300), (150, 150), (1, 3)]
    assert pieces_of((1000,), 1000) == [(1000, 1000)]


def test_labels_are_those_of_the_capacity():
    assert class_labels(65_536) == ["sequence under 2k tokens", "2k to 8k", "8k to 32k", "32k and over"]


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0 %"), (0.0816, "8.2 %"), (0.2249, "22 %"), (0.99951, "99.95 %"), (0.999999, "99.99 %"), (1, "100 %")],
)
def test_percent_never_rounds_up_to_all(share, words):
    assert percent(share) == words
