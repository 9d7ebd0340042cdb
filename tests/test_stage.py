"""Addresses: what moves them and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from longalign_core.config import Runtime
from longalign_core.config.base import Section, Source, added
from longalign_core.errors import InputError
from longalign_core.execution import address_of, describe, open_context
from longalign_core.source_files import list_files
from longalign_core.sources import UnpinnedSourceError
from longalign_core.stage import Stage


class Old(Section):
    size: float = 1.0
    data: Source
    more: Source | None = None


class New(Old):
    flavour: str = added("plain", description="Came later.")


class Nested(Section):
    parts: tuple[Old, ...] = Field(default=())


STAGE: Stage[Old] = Stage("thing", 1, lambda config, inputs, out_dir, runtime: {})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("alpha")
    (folder / "inner" / "b.txt").write_text("beta")
    return folder


def key(
    config: Section,
    tmp_path: Path,
    *,
    stage: Stage[Old] = STAGE,
    inputs: dict[str, list[str]] | None = None,
    **runtime: object,
) -> str:
    settings = Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch", **runtime)
    return address_of(stage, config, inputs or {}, open_context(settings, resolve_hub=False))[1]


def test_key_moving_the_data_changes_nothing_and_new_data_changes_it(data: Path, tmp_path: Path) -> None:
    before = key(Old(data=str(data)), tmp_path)
    moved = data.rename(tmp_path / "elsewhere")
    assert key(Old(data=str(moved)), tmp_path) == before
    (moved / "c.txt").write_text("gamma")
    assert key(Old(data=str(moved)), tmp_path) != before


def test_key_changed_content_of_the_same_size_changes_it(data: Path, tmp_path: Path) -> None:
    before = key(Old(data=str(data)), tmp_path)
    (data / "a.txt").write_text("ALPHA")
    assert key(Old(data=str(data)), tmp_path) != before


def test_key_runtime_never_enters(data: Path, tmp_path: Path) -> None:
    config = Old(data=str(data))
    assert key(config, tmp_path) == key(config, tmp_path, ranks=7, zero_stage=3, endpoints={"judge": "http://x/v1"})


def test_key_version_config_and_inputs_enter(data: Path, tmp_path: Path) -> None:
    config = Old(data=str(data))
    keys = {
        key(config, tmp_path),
        key(Old(data=str(data), size=2), tmp_path),
        key(config, tmp_path, stage=Stage("thing", 2, STAGE.function)),
        key(config, tmp_path, inputs={"documents": ["ingest/1"]}),
        key(config, tmp_path, inputs={"documents": ["ingest/2"]}),
        key(Old(data=str(data), more=str(data / "inner")), tmp_path),
    }
    assert len(keys) == 6


def test_key_field_added_later_is_left_out_while_neutral(data: Path, tmp_path: Path) -> None:
    old = key(Old(data=str(data)), tmp_path)
    assert key(New(data=str(data)), tmp_path) == old
    assert key(New(data=str(data), flavour="spicy"), tmp_path) != old


def test_key_is_the_same_however_numbers_are_written(data: Path, tmp_path: Path) -> None:
    assert key(Old(data=str(data), size=1), tmp_path) == key(Old(data=str(data), size=1.0), tmp_path)


def test_key_sources_of_nested_sections_enter_by_content(data: Path, tmp_path: Path) -> None:
    before = key(Nested(parts=(Old(data=str(data)),)), tmp_path)
    moved = data.rename(tmp_path / "elsewhere")
    assert key(Nested(parts=(Old(data=str(moved)),)), tmp_path) == before


def test_fingerprint_takes_links_by_what_they_lead_to_and_leaves_hidden_files_out(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("one")
    (data / "model.safetensors").symlink_to(weights)
    before = key(Old(data=str(data)), tmp_path)
    (data / ".hidden").write_text("x")
    assert key(Old(data=str(data)), tmp_path) == before
    weights.write_text("two")
    assert key(Old(data=str(data)), tmp_path) != before


def test_fingerprint_sees_links_that_a_corpus_rejects_and_no_byte_code_that_nobody_reads(
    data: Path, tmp_path: Path
) -> None:
    before = key(Old(data=str(data)), tmp_path)
    (data / "__pycache__").mkdir()
    (data / "__pycache__" / "notes.txt").write_text("x")
    assert key(Old(data=str(data)), tmp_path) == before
    assert [file.relative_path for file in list_files(data).files] == ["a.txt", "inner/b.txt"]
    for target in (data / "inner", data / "nothing"):
        (data / "link").unlink(missing_ok=True)
        (data / "link").symlink_to(target)
        assert list_files(data).links == ("link",)
        assert key(Old(data=str(data)), tmp_path) != before


@pytest.mark.parametrize(
    ("source", "expected"), [("/no/such/folder", "does not exist"), ("hub:malformed", "not a hub id")]
)
def test_source_that_is_not_there_is_one_sentence(source: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=expected):
        key(Old(data=source), tmp_path)


def test_hub_source_enters_by_revision_and_unpinned_waits(tmp_path: Path) -> None:
    pinned = "hub:org/name@" + "a" * 40
    assert key(Old(data=pinned), tmp_path) != key(Old(data="hub:org/name@" + "b" * 40), tmp_path)
    with pytest.raises(UnpinnedSourceError, match="unpinned"):
        key(Old(data="hub:org/name"), tmp_path)


def test_hub_source_locked_in_the_store_needs_no_hub(tmp_path: Path) -> None:
    context = open_context(Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch"))
    context.store.move_ref("hub--org--name", '{"revision": "' + "a" * 40 + '"}', None)
    assert key(Old(data="hub:org/name"), tmp_path) == key(Old(data="hub:org/name@" + "a" * 40), tmp_path)


def test_described_counts_put_the_parts_of_a_count_behind_it() -> None:
    counts = {"documents": 1200, "rejects": 7, "rejects: quality: page": 4, "rejects: too short": 3, "mean_tokens": 0.5}
    assert describe(counts) == "1,200 documents, 7 rejects (4 quality: page, 3 too short), 0.5 mean tokens"
    assert describe({"skipped: empty": 2}) == "2 skipped: empty"
