"""Resume points: only whole ones are taken, only the last ones kept."""

from __future__ import annotations

import pytest

from longalign_core.training.resume import complete_point, digest_files, find_point, list_files, resume_tag

LAYOUT = "2 ranks under ZeRO-2"


def make_point(root, step, layout=LAYOUT, complete=True):
    folder = root / resume_tag(step)
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "state.pt").write_bytes(b"weights of step %d" % step)
    (folder / "sub" / "rank.pt").write_bytes(b"optimizer")
    if complete:
        complete_point(root, step, layout, digest_files(folder, list_files(folder)))
    return folder


def test_find_point_no_folder_gives_none(tmp_path):
    assert find_point(tmp_path / "absent", LAYOUT) is None


def test_find_point_latest_whole_point_is_taken(tmp_path):
    for step in (5, 10):
        make_point(tmp_path, step)
    make_point(tmp_path, 15, complete=False)
    point = find_point(tmp_path, LAYOUT)
    assert (point.step, point.tag) == (10, resume_tag(10))


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_find_point_damaged_point_falls_back_to_the_one_before(tmp_path, damage):
    make_point(tmp_path, 5)
    file = make_point(tmp_path, 10) / "sub" / "rank.pt"
    match damage:
        case "changed":
            file.write_bytes(b"Optimizer")
        case "cut":
            file.write_bytes(b"opt")
        case "gone":
            file.unlink()
    assert find_point(tmp_path, LAYOUT).step == 5


def test_find_point_of_another_layout_is_not_taken(tmp_path):
    make_point(tmp_path, 5, layout="4 ranks under ZeRO-2")
    assert find_point(tmp_path, LAYOUT) is None


def test_complete_point_keeps_the_last_two_and_nothing_half_written(tmp_path):
    make_point(tmp_path, 5)
    make_point(tmp_path, 7, complete=False)
    make_point(tmp_path, 10)
    make_point(tmp_path, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == [resume_tag(10), resume_tag(15)]


def test_complete_point_of_a_new_layout_stays_beside_higher_steps_of_the_old_one(tmp_path):
    for step in (350, 400):
        make_point(tmp_path, step)
    layout = "4 ranks under ZeRO-2"
    make_point(tmp_path, 50, layout)
    assert find_point(tmp_path, layout).step == 50
    make_point(tmp_path, 100, layout)
    assert sorted(path.name for path in tmp_path.iterdir()) == [resume_tag(50), resume_tag(100)]
    assert find_point(tmp_path, layout).step == 100


def test_complete_point_removes_the_damaged_one_of_a_later_step(tmp_path):
    make_point(tmp_path, 5)
    (make_point(tmp_path, 10) / "state.pt").write_bytes(b"damaged")
    for step in (6, 8):  # gone on from step 5, with another interval
        make_point(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [resume_tag(6), resume_tag(8)]
    assert find_point(tmp_path, LAYOUT).step == 8
