"""The archive: what one machine paid for, every other one finds."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from longalign_core.chat_client.archive import SEGMENT_ROWS, shelf_of
from longalign_core.errors import StoreError
from tests.archive_setup import DOCUMENT, SHELF, machine, names, request_about, wait_until
from tests.test_response_store import write_old_form


def test_archive_two_machines_find_what_the_other_paid_for(tmp_path, store_url):
    with machine(tmp_path / "one", store_url) as one, machine(tmp_path / "two", store_url) as two:
        one.put(1, 2, text="of one")
        one.responses.put_note("draw", "3")
        two.put(2, 3, text="of two")
        assert (one.archive.save(), two.archive.save()) == (3, 2)
        assert (one.archive.fetch(), two.archive.fetch()) == (1, 1)
        assert one.texts(1, 2, 3) == ["of one 1", "of one 2", "of two 3"]
        assert two.texts(1, 2, 3) == ["of one 1", "of two 2", "of two 3"]
        assert two.responses.note("draw") == "3"
        assert (one.archive.save(), two.archive.save()) == (0, 0)


def test_archive_second_start_downloads_nothing(tmp_path, store_url):
    with machine(tmp_path / "one", store_url) as one:
        one.put(1, 2)
        one.archive.save()
        one.put(3)
        one.archive.save()
    for folder, num_segments in (("two", 2), ("two", 0), ("one", 0)):
        with machine(tmp_path / folder, store_url) as other:
            assert other.archive.fetch() == num_segments
            assert len(other.objects.read_names) == num_segments
            assert other.texts(1, 2, 3, 4) == ["words 1", "words 2", "words 3", None]


def test_archive_file_moved_away_is_filled_again(tmp_path, store_url):
    with machine(tmp_path / "one", store_url) as one:
        one.put(*range(5))
        one.archive.save()
    shutil.rmtree(tmp_path / "one")
    with machine(tmp_path / "one", store_url) as one:
        assert one.archive.fetch() == 1
        assert one.texts(*range(5)) == [f"words {number}" for number in range(5)]


def test_archive_documents_are_stored_once_and_fetched_only_when_needed(tmp_path, store_url):
    sha256 = hashlib.sha256(DOCUMENT.encode()).hexdigest()
    with machine(tmp_path / "one", store_url) as one, machine(tmp_path / "two", store_url) as two:
        for number in range(10):
            one.put(number)
            one.archive.save()
        two.put(99)
        two.archive.save()
        assert names(one.objects, "texts") == [f"_replies/texts/{sha256}.zst"]
        assert len(names(one.objects, f"replies/{SHELF}")) == 11
    with machine(tmp_path / "three", store_url) as three:
        three.archive.fetch()
        assert not any("texts" in name for name in three.objects.read_names)
        with pytest.raises(StoreError, match="no archive was named"):
            three.responses.request_of(request_about(3).key)
        three.objects.read_names.clear()
        for number in (3, 4, 99):
            found = three.responses.request_of(request_about(number).key, three.archive.text)
            assert found == request_about(number)
        assert three.objects.read_names == [f"_replies/texts/{sha256}.zst"]


def test_archive_segment_refers_only_to_texts_that_were_there_before(tmp_path, store_url):
    with machine(tmp_path / "one", store_url) as one:
        one.put(1)
        one.archive.save()
        text, segment = one.objects.created
        assert (text.split("/")[1], segment.split("/")[1]) == ("texts", "replies")


def test_archive_odd_characters_come_back_as_they_were(tmp_path, store_url):
    odd = "a\x00b\ud800c\ud83d\ude00d\u2028e\r\n中文 😀"
    with machine(tmp_path / "one", store_url) as one:
        one.put(1, text=odd)
        one.responses.put_note(odd, odd)
        one.archive.save()
    with machine(tmp_path / "two", store_url) as two:
        two.archive.fetch()
        assert two.texts(1) == [f"{odd} 1"]
        assert two.responses.note(odd) == odd


def test_archive_other_shelves_are_not_read(tmp_path, store_url):
    with machine(tmp_path / "one", store_url, shelf_of("instruct", "org/model:7b")) as one:
        one.put(1)
        one.archive.save()
    with machine(tmp_path / "two", store_url, shelf_of("instruct", "org/model:7B")) as two:
        assert two.archive.fetch() == 0
        assert two.objects.read_names == []


@pytest.mark.parametrize("model", ["org/model:7b", "../../etc", "模型", "a" * 500, "_x", ".", "\ud800", "a b\x00c"])
def test_shelf_any_model_is_one_safe_folder(tmp_path, model):
    shelf = shelf_of("instruct", model)
    (tmp_path / shelf).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [shelf]
    assert shelf.isascii() and shelf.startswith("instruct-")
    assert shelf.lower() != shelf_of("instruct", model + "!").lower()


def test_archive_saves_while_work_goes_on_by_time_and_by_number(tmp_path, store_url):
    with machine(tmp_path / "one", store_url) as one:
        with one.archive.saving(seconds=0.01):
            one.put(1)
            wait_until(lambda: len(names(one.objects, "replies")) == 1)
        with one.archive.saving(seconds=3600):
            one.put(*range(2, SEGMENT_ROWS + 2))
            wait_until(lambda: len(names(one.objects, "replies")) >= 2)
            one.put(SEGMENT_ROWS + 2)
    with machine(tmp_path / "two", store_url) as two:
        two.archive.fetch()
        assert len(two.responses) == SEGMENT_ROWS + 2


def test_archive_replies_of_the_old_form_join_the_shelf_that_asks_for_them(tmp_path):
    url = str(tmp_path / "store")
    path = tmp_path / "one" / "responses" / "instruct.sqlite"
    path.parent.mkdir(parents=True)
    write_old_form(path, [(request_about(number).key, f"old {number}", "stop", "m", 1, 2) for number in range(3)])
    with machine(tmp_path / "one", url) as one:
        assert one.archive.save() == 0
        assert one.texts(0, 1) == ["old 0", "old 1"]
        assert one.archive.save() == 2
    with machine(tmp_path / "two", url) as two:
        two.archive.fetch()
        assert two.texts(0, 1, 2) == ["old 0", "old 1", None]
        assert two.responses.request_of(request_about(0).key, two.archive.text) is None
