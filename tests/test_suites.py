"""Suites that take no long conversation leave out what they have no use for, down to the first call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from longalign_core.config.loading import load_recipe
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.execution import open_context
from longalign_core.pipeline import STAGES, run_pipeline
from longalign_core.recipe_checks import check_inputs
from longalign_core.record_files import read_records
from longalign_core.records import Conversation
from longalign_core.runner import PlanRunner
from tests.fake_hub import REVISION, fake_hub
from tests.tiny_model import tiny_tokenizer

REPOSITORY = Path(__file__).resolve().parent.parent
OF_DOCUMENTS = ["ingest", "clean", "select", "instruct"]
ROWS = [{"id": f"x_{n}", "conversations": [{"from": "human", "value": f"q{n}"}, {"from": "gpt", "value": "a"}]}
        for n in range(6)]  # fmt: skip


@pytest.fixture
def sections(tmp_path: Path) -> dict:
    """A recipe whose generator is nowhere to be had, and whose instruction set is a file."""
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("A short book. " * 200)
    (tmp_path / "chat.json").write_text(json.dumps(ROWS))
    tiny_tokenizer(tmp_path / "tokenizer")
    found = yaml.safe_load((REPOSITORY / "deployments" / "recipes" / "demo.yaml").read_text())
    found["corpora"] = [{"name": "books", "format": "text", "location": "books"}]
    found["selection"]["tokenizer"] = found["encoding"]["tokenizer"] = "tokenizer"
    found["training"]["base_model"] = "tokenizer"
    found["instruct"]["generator"] |= {"checkpoint": None, "model": "no-such-model"}
    found["mixture"] = {"suite": "0k", "sets": [{"name": "chat", "location": "chat.json"}]}
    found["evaluation"]["suites"] = []
    return found


def written(folder: Path, sections: dict) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    return path


def planned(folder: Path, sections: dict) -> dict[str, str]:
    """Address by stage."""
    runtime = Runtime(store=str(folder / "store"), scratch=folder / "scratch")
    runner = PlanRunner(open_context(runtime), until="batches")
    run_pipeline(runner, load_recipe(written(folder, sections)))
    return {one.stage: str(one.key) for one in runner.artifacts}


def test_plan_of_suite_0k_has_no_stage_of_documents_and_does_not_depend_on_them(tmp_path, sections):
    first = planned(tmp_path, sections)
    assert next(iter(first)) == "mixture"
    assert not set(OF_DOCUMENTS) & set(first)
    (tmp_path / "books" / "one.txt").write_text("Another book.")
    sections["instruct"]["seed"] = 99
    assert planned(tmp_path, sections) == first


def test_plan_of_suite_longalpaca_takes_the_set_in_their_place(tmp_path, sections):
    sections["mixture"]["suite"] = "longalpaca-12k"
    sections["mixture"]["sets"].append({"name": "longalpaca", "location": "chat.json"})
    assert next(iter(planned(tmp_path, sections))) == "mixture"


def test_plan_of_suite_0k_with_extension_selects_documents_and_asks_nobody(tmp_path, sections):
    sections["extension"] = {"enabled": True, "num_tokens": 1_000}
    stages = list(planned(tmp_path, sections))
    assert stages[:4] == ["ingest", "clean", "select", "mixture"]


def test_plan_of_other_suites_is_what_it_was(tmp_path, sections):
    sections["mixture"]["suite"] = "all"
    assert list(planned(tmp_path, sections))[:5] == [*OF_DOCUMENTS, "mixture"]


def test_suite_0k_asks_for_no_file_of_what_it_leaves_out(tmp_path, sections):
    sections["corpora"][0]["location"] = "gone"
    check_inputs(load_recipe(written(tmp_path, sections)), "mixture")
    for stage in OF_DOCUMENTS:
        with pytest.raises(InputError, match="takes no long conversations"):
            check_inputs(load_recipe(written(tmp_path, sections)), stage)
    sections["mixture"]["suite"] = "all"
    with pytest.raises(InputError, match="gone"):
        check_inputs(load_recipe(written(tmp_path, sections)), "mixture")


def test_run_of_suite_0k_takes_a_hub_set_at_its_locked_revision_and_spends_no_call(tmp_path, sections):
    sections["mixture"]["sets"] = [
        {"name": "sharegpt", "location": "hub:datasets/team/sharegpt", "files": ["cleaned*.json"], "licence": "CC0-1.0"}
    ]
    files = {
        "README.md": b"# ShareGPT",
        "cleaned_split.json": json.dumps(ROWS).encode(),
        "HTML_raw/part1.json": json.dumps(ROWS[:1]).encode(),
        "dataset_infos.json": b"{}",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PREFECT_"))}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(REPOSITORY)}
    environment |= {"LONGALIGN_STORE": str(tmp_path / "store"), "LONGALIGN_SCRATCH": str(tmp_path / "scratch")}
    with fake_hub({"team/sharegpt": files}) as url:
        done = subprocess.run(
            [sys.executable, "-m", "longalign_core.cli", "run", str(written(tmp_path, sections)), "--until", "mixture"],
            capture_output=True, text=True, timeout=120, env={**environment, "HF_ENDPOINT": url},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    store = open_context(Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch")).store
    assert {address.split("/")[0] for address in store.addresses()} == {"mixture"}
    (address,) = store.addresses("mixture")
    manifest = store.require(address)
    assert manifest.config["sets"][0]["location"] == {"fingerprint": REVISION}
    locked = store.read_ref("hub/datasets/team/sharegpt".replace("/", "--"))
    assert locked is not None and json.loads(locked[0]) == {"revision": REVISION}
    mixed = list(read_records(store.fetch(manifest) / "conversations.parquet", Conversation))
    assert sorted(one.messages[0].content for one in mixed) == [f"q{n}" for n in range(6)]
    assert manifest.counts["rejects"] == 0
    (folder,) = (tmp_path / "scratch" / "hub").iterdir()
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["cleaned_split.json"]
    assert set(OF_DOCUMENTS) < set(STAGES)
