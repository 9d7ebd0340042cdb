"""What a stage opens that talks to models: kept here, archived, and found on a new machine."""

from __future__ import annotations

import pytest

from longalign_core.chat_client.archive import shelf_of
from longalign_core.config.runtime import Runtime
from longalign_core.errors import StoreError
from longalign_core.store.files import open_files
from tests.archive_setup import opened_calls, reply_of, request_about
from tests.chat_setup import request_of


def settings(folder, store) -> Runtime:
    return Runtime(scratch=folder, store=str(store))


def test_calls_of_two_models_share_a_file_and_keep_to_their_shelves(tmp_path):
    runtime = settings(tmp_path / "one", tmp_path / "store")
    with opened_calls("evaluate", "candidate", runtime) as asked, opened_calls("evaluate", "judge", runtime) as judging:
        asked.responses.put(request_of("hello", model="candidate"), reply_of("asked"))
        judging.responses.put(request_of("hello", model="judge"), reply_of("judged"))
        judging.responses.put_note("draw", "1")
        assert len(asked.responses) == len(judging.responses) == 2
    files = open_files(runtime.store)
    assert len(files.sizes("_replies/replies")) == 2
    assert len(files.sizes(f"_replies/replies/{shelf_of('evaluate', 'judge')}")) == 1
    elsewhere = settings(tmp_path / "two", tmp_path / "store")
    with opened_calls("evaluate", "judge", elsewhere) as judging:
        assert judging.responses.get(request_of("hello", model="judge").key).text == "judged"
        assert judging.responses.get(request_of("hello", model="candidate").key) is None
        assert judging.responses.note("draw") == "1"


def test_calls_end_by_an_error_keeps_what_was_paid_for_in_the_store(tmp_path):
    request = request_about(1)
    with (
        pytest.raises(ZeroDivisionError),
        opened_calls("instruct", "m", settings(tmp_path / "one", tmp_path / "s")) as one,
    ):
        one.responses.put(request, reply_of("words"))
        raise ZeroDivisionError
    with opened_calls("instruct", "m", settings(tmp_path / "two", tmp_path / "s")) as two:
        assert two.responses.get(request.key).text == "words"
        assert two.request_of(request.key) == request


def test_calls_with_a_store_that_is_none_stop_before_anything_is_asked(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "_replies").write_text("")
    # `rglob` finds nothing under a file, so the store is only found out when it is written.
    with (
        pytest.raises(StoreError, match="cannot write to the store"),
        opened_calls("instruct", "m", settings(tmp_path / "one", tmp_path / "store")) as calls,
    ):
        calls.responses.put(request_about(1), reply_of("words"))
