"""`longalign push` as a person meets it, against a hub on loopback that the real library speaks to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from longalign_core.config.mixture import MixtureConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.execution import Context, execute, open_context
from longalign_core.hub_push import PushOptions, check_licences, prepare_push
from longalign_core.provenance import provenance
from longalign_core.record_files import write_records
from longalign_core.records import Conversation, Reject, SourceLicence
from longalign_core.stages.licences import carry_licences
from longalign_core.stages.mixture import mixture
from tests.fake_hub_upload import TOKEN, UploadHub, fake_upload_hub
from tests.mixture_setup import Room, chat, long_conversation
from tests.test_dataset_card import loaded

REPOSITORY = Path(__file__).resolve().parent.parent
PUBLISHED = ["README.md", "conversations.parquet", "licences.json", "manifest.json", "mixture.json"]


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with fake_upload_hub() as one:
        yield one


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return open_context(Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch"))


def mixed(context: Context, folder: Path, rows: int = 3, **fields: object) -> str:
    """Address of a mixture of one set."""
    one_set = Room(folder).set_of([chat(number) for number in range(rows)], **fields)
    manifest, _ = execute(mixture, MixtureConfig(suite="0k", sets=(one_set,)), {}, context)
    return manifest.address


def push(
    context: Context, hub: UploadHub | None, *arguments: str, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PREFECT_"))}
    home = str(context.runtime.scratch / "home")
    given |= {"HF_HUB_DISABLE_XET": "1", "HF_HOME": home, "HF_TOKEN": token, "PYTHONPATH": str(REPOSITORY)}
    given |= {"LONGALIGN_STORE": context.runtime.store, "LONGALIGN_SCRATCH": str(context.runtime.scratch)}
    given["HF_ENDPOINT"] = hub.url if hub else "http://127.0.0.1:9"
    return subprocess.run(
        [sys.executable, "-m", "longalign_core.cli", "push", *arguments],
        capture_output=True, text=True, env=given, timeout=120,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert TOKEN not in done.stdout + done.stderr
    for part in parts:
        assert part in line


def test_push_uploads_the_published_files_byte_for_byte_and_they_load(context, hub, tmp_path):
    address = mixed(context, tmp_path, licence="MIT")
    done = push(context, hub, address, "team/long")
    assert done.returncode == 0, done.stderr
    files = hub.repositories["datasets/team/long"].branches["main"]
    assert sorted(files) == PUBLISHED
    folder = context.store.fetch(context.store.require(address))
    for name in (one for one in PUBLISHED if one != "manifest.json"):
        assert files[name] == (folder / name).read_bytes()
    for name, data in files.items():
        (tmp_path / "clone").mkdir(exist_ok=True)
        (tmp_path / "clone" / name).write_bytes(data)
    assert len(loaded(tmp_path / "clone", tmp_path / "cache")["rows"]) == 3
    assert not hub.repositories["datasets/team/long"].private


def test_push_manifest_says_nothing_of_this_machine(context, hub, tmp_path):
    address = mixed(context, tmp_path, licence="MIT")
    options = PushOptions()
    told = dict(prepare_push(context, address, "team/long", options).files)["manifest.json"].read_text()
    assert json.loads(told)["key"] == address.split("/")[1]
    assert provenance(0.0)["host"] not in told
    assert str(tmp_path) not in told


def test_push_again_sends_only_what_changed_and_removes_what_is_stale(context, hub, tmp_path):
    address = mixed(context, tmp_path, licence="MIT")
    assert push(context, hub, address, "team/long", "--jsonl", "--with-rejects").returncode == 0
    files = hub.repositories["datasets/team/long"].branches["main"]
    assert sorted(files) == sorted([*PUBLISHED, "conversations.jsonl", "rejects.parquet"])
    files["notes.txt"] = b"somebody's own"
    num_objects = len([one for one in hub.requests if one[0] == "PUT"])
    done = push(context, hub, address, "team/long")
    assert done.returncode == 0, done.stderr
    assert sorted(files) == sorted([*PUBLISHED, "notes.txt"])
    assert len([one for one in hub.requests if one[0] == "PUT"]) == num_objects


def test_push_to_a_branch_leaves_main_alone(context, hub, tmp_path):
    address = mixed(context, tmp_path, licence="MIT")
    for _ in range(2):  # a branch that is there already is used
        done = push(context, hub, address, "team/long", "--revision", "trial")
        assert done.returncode == 0, done.stderr
    branches = hub.repositories["datasets/team/long"].branches
    assert (branches["main"], sorted(branches["trial"])) == ({}, PUBLISHED)


def test_push_private_refuses_a_repository_that_is_public(context, hub, tmp_path):
    address = mixed(context, tmp_path, licence="MIT")
    unstated = mixed(context, tmp_path / "other", rows=4)
    assert push(context, hub, address, "team/long").returncode == 0
    before = dict(hub.repositories["datasets/team/long"].branches["main"])
    refused(push(context, hub, unstated, "team/long", "--private"), 1, "is there already and is public")
    assert hub.repositories["datasets/team/long"].branches["main"] == before
    assert push(context, hub, unstated, "team/new", "--private").returncode == 0
    assert hub.repositories["datasets/team/new"].private


def test_push_dry_run_lists_files_and_licences_and_asks_nobody(context, hub, tmp_path):
    address = mixed(context, tmp_path, licence="MIT")
    done = push(context, hub, address, "team/long", "--dry-run", token="")
    assert done.returncode == 0, done.stderr
    size = (context.store.fetch(context.store.require(address)) / "conversations.parquet").stat().st_size
    for part in (*PUBLISHED, f"{size:,}", "MIT", "nothing was pushed"):
        assert part in done.stdout
    assert hub.requests == []


def test_push_without_a_token_or_a_hub_is_one_sentence(context, hub, tmp_path):
    address = mixed(context, tmp_path, licence="MIT")
    refused(push(context, hub, address, "team/long", token=""), 2, "HF_TOKEN is not set")
    refused(push(context, hub, address, "team/long", token="hf_" + "y" * 20), 1, "HTTP 401", "HF_TOKEN is not valid")
    refused(push(context, None, address, "team/long"), 1, "broke off (ConnectError", "push again")
    refused(push(context, hub, address, "long"), 2, "organisation/name")
    assert hub.repositories == {}


def test_push_refused_in_the_middle_leaves_the_repository_as_it_was(context, hub, tmp_path):
    address = mixed(context, tmp_path, licence="MIT")
    hub.refuses["/commit/"] = (403, "You need write access")
    refused(push(context, hub, address, "team/long"), 1, "HTTP 403: You need write access", "right to write")
    assert hub.repositories["datasets/team/long"].branches["main"] == {}


def test_push_of_texts_that_may_not_be_passed_on_asks_nobody(context, hub, tmp_path):
    address = mixed(context, tmp_path, licence="MIT", redistributable=False)
    refused(push(context, hub, address, "team/long"), 2, "texts of chat may not be passed on", "--despite chat")
    refused(push(context, hub, address, "team/long", "--despite", "chat"), 2, "works with --private only")
    assert hub.requests == []
    assert push(context, hub, address, "team/long", "--private", "--despite", "chat").returncode == 0
    assert hub.repositories["datasets/team/long"].private


def licence(source: str, name: str | None = None, redistributable: bool | None = None, **by: int) -> SourceLicence:
    return SourceLicence(source=source, licence=name, redistributable=redistributable, records=3, by_licence=by)


@pytest.mark.parametrize(
    ("licences", "options", "said"),
    [
        ([licence("a", "MIT")], PushOptions(), None),
        ([licence("a", redistributable=True)], PushOptions(), None),
        ([licence("a", MIT=3)], PushOptions(), None),
        ([licence("a", "MIT", **{"not stated": 3})], PushOptions(), None),
        ([licence("a", MIT=2, **{"not stated": 1}), licence("b")], PushOptions(), "texts of a, b; state it"),
        ([licence("a", MIT=2, **{"not stated": 1}), licence("b")], PushOptions(private=True), None),
        ([], PushOptions(), "for this artifact; state it"),
        ([licence("a", redistributable=False), licence("b", redistributable=False)],
         PushOptions(private=True, despite=("a",)), "texts of b may not be passed on"),
        ([licence("a", redistributable=False)], PushOptions(private=True, despite=("a", "c")), "--despite c"),
    ],
)  # fmt: skip
def test_check_licences_allows_what_is_stated_and_names_what_is_not(licences, options, said):
    if said is None:
        check_licences(licences, options)
        return
    with pytest.raises(InputError, match=said):
        check_licences(licences, options)


def test_push_of_a_checkpoint_is_a_model_with_a_card_and_a_stated_licence(context, hub, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    identity = {"stage": "checkpoint", "version": 1, "config": {"step": "final"}, "inputs": {}}
    manifest = context.store.commit(
        folder, identity, "0" * 16, label="final", counts={}, runtime={}, provenance=provenance(0.0)
    )
    refused(push(context, hub, manifest.address, "team/model"), 2, "give it with --licence")
    done = push(context, hub, manifest.address, "team/model", "--licence", "apache-2.0")
    assert done.returncode == 0, done.stderr
    files = hub.repositories["models/team/model"].branches["main"]
    assert sorted(files) == ["README.md", "config.json", "manifest.json", "model.safetensors"]
    assert files["model.safetensors"] == bytes(range(256))
    assert files["README.md"].startswith(b"---\nlicense: apache-2.0\n")


def test_push_of_generated_conversations_made_before_cards_writes_one(context, tmp_path):
    folder = tmp_path / "product"
    one = long_conversation(1)
    write_records(folder / "conversations.parquet", [replace(one, licence="CC0-1.0")], Conversation)
    write_records(folder / "rejects.parquet", [], Reject)
    carry_licences((), folder / "conversations.parquet", folder)
    identity = {"stage": "instruct", "version": 2, "config": {}, "inputs": {}}
    manifest = context.store.commit(folder, identity, "2" * 16, label="", counts={}, runtime={}, provenance={})
    files = dict(prepare_push(context, manifest.address, "team/long", PushOptions()).files)
    assert sorted(files) == ["README.md", "conversations.parquet", "licences.json", "manifest.json"]
    assert "license: cc0-1.0" in files["README.md"].read_text()


def test_push_of_another_stage_is_refused(context):
    identity = {"stage": "encode", "version": 1, "config": {}, "inputs": {}}
    empty = context.runtime.scratch / "empty"
    empty.mkdir()
    manifest = context.store.commit(empty, identity, "1" * 16, label="", counts={}, runtime={}, provenance={})
    with pytest.raises(InputError, match="neither a set of conversations nor a model"):
        prepare_push(context, manifest.address, "team/x", PushOptions())
