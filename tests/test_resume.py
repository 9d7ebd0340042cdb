"""Resume points: only whole ones are taken, only the last ones kept."""

from __future__ import annotations

import pytest

from longalign_core.training.resume import (
    Partition,
    complete_point,
    digest_files,
    find_point,
    list_files,
    list_points,
    resume_tag,
)

PARTITION = Partition(ranks=2, zero_stage=2)


def make_point(root, step, partition=PARTITION, complete=True, kept=2):
    folder = root / resume_tag(step)
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "state.pt").write_bytes(b"weights of step %d" % step)
    (folder / "sub" / "rank.pt").write_bytes(b"optimizer")
    if complete:
        complete_point(root, step, partition, digest_files(folder, list_files(folder)), num_kept=kept)
    return folder


def test_find_point_no_folder_gives_none(tmp_path):
    assert find_point(tmp_path / "absent") is None


def test_find_point_latest_whole_point_is_taken(tmp_path):
    for step in (5, 10):
        make_point(tmp_path, step)
    make_point(tmp_path, 15, complete=False)
    point = find_point(tmp_path)
    assert (point.step, point.tag) == (10, resume_tag(10))


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "list cut", "renamed"])
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
        case "list cut":
            points = list_points(tmp_path)
            points[0].write_bytes(points[0].read_bytes()[:-10])
        case "renamed":  # else the plan would go on at another step than the weights
            (tmp_path / resume_tag(10)).rename(tmp_path / resume_tag(12))
    assert find_point(tmp_path).step == 5


def test_complete_point_keeps_the_last_ones_and_nothing_half_written(tmp_path):
    make_point(tmp_path, 5)
    make_point(tmp_path, 7, complete=False)
    (tmp_path / "universal-step-00000005").mkdir()
    make_point(tmp_path, 10)
    make_point(tmp_path, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == [resume_tag(10), resume_tag(15)]
    make_point(tmp_path, 20, kept=3)
    assert [path.parent.name for path in list_points(tmp_path)] == [resume_tag(20), resume_tag(15), resume_tag(10)]
    make_point(tmp_path, 25, kept=1)
    assert [path.name for path in tmp_path.iterdir()] == [resume_tag(25)]


def test_complete_point_of_another_layout_takes_its_place_among_the_last(tmp_path):
    make_point(tmp_path, 5)
    make_point(tmp_path, 10, partition=Partition(ranks=4, zero_stage=2))
    make_point(tmp_path, 15, partition=Partition(ranks=4, zero_stage=2))
    assert [path.parent.name for path in list_points(tmp_path)] == [resume_tag(15), resume_tag(10)]


def test_complete_point_removes_the_damaged_one_of_a_later_step(tmp_path):
    make_point(tmp_path, 5)
    (make_point(tmp_path, 10) / "state.pt").write_bytes(b"damaged")
    for step in (6, 8):  # gone on from step 5, with another interval
        make_point(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [resume_tag(6), resume_tag(8)]
    assert find_point(tmp_path).step == 8
