"""The dataset card, read by the libraries that read it on the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard

from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Message
from longalign_core.stages.dataset_card import dataset_card, write_dataset_card
from longalign_core.stages.licences import carry_licences
from tests.mixture_setup import Room, chat

REPOSITORY = Path(__file__).resolve().parent.parent
LOAD = """
import json, sys
from datasets import load_dataset
found = load_dataset(sys.argv[1], split="train", cache_dir=sys.argv[2])
print(json.dumps({"features": str(found.features["messages"]), "rows": list(found)}))
"""


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def loaded(folder: Path, cache: Path) -> dict:
    """What `datasets.load_dataset` makes of a folder, in a process that is told to stay offline."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache / "home")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), str(cache)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_mixture_folder_is_loaded_as_a_dataset_with_its_messages(room, tmp_path):
    sets = (room.set_of([chat(number) for number in range(4)], licence="MIT"),)
    room.run(3, suite="all", sets=sets)
    found = loaded(room.out, tmp_path / "cache")
    expected = list(read_records(room.out / "conversations.parquet", Conversation))
    assert [row["id"] for row in found["rows"]] == [one.id for one in expected]
    assert [[(one["role"], one["content"]) for one in row["messages"]] for row in found["rows"]] == [
        [(one.role, one.content) for one in conversation.messages] for conversation in expected
    ]
    assert "'role': Value('string')" in found["features"]


def test_mixture_card_tells_sources_licences_and_what_is_missing(room):
    sets = (
        room.set_of([chat(number) for number in range(4)], "short", licence="MIT", share=0.5),
        room.set_of([chat(1), chat(9)], "more", language="zh"),
    )
    room.run(3, suite="5k", sets=sets)
    text = (room.out / "README.md").read_text()
    front = front_matter(text)
    assert front["language"] == ["en", "zh"]
    assert (front["license"], front["license_name"]) == ("other", "mixed")
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "conversations.parquet"}]}
    ]
    assert "| short | 4 | MIT | not stated |" in text
    assert "| books | 3 | not stated | not stated |" in text
    assert "| long | 3 | 3 | 5,000 | 3 | 4,997 | 0 | 0 | none |" in text
    assert "| more | 2 | 1 | 1 | 1 | 0 | 0 | 0 | 1 duplicate |" in text
    assert "| generator | 3 | 37.5% |" in text
    assert DatasetCard(text).data.license == "other"


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (("MIT",), {"license": "mit"}),
        (("MIT", "CC-BY-SA-4.0"), {"license": ["cc-by-sa-4.0", "mit"]}),
        (("MIT", None), {"license": "other", "license_name": "mixed"}),
        (("PSF-2.0",), {"license": "other", "license_name": "mixed"}),
        ((None,), {"license": "unknown"}),
    ],
)
def test_card_names_the_hubs_licence_only_where_every_text_has_one(tmp_path, licences, expected):
    messages = (Message(role="user", content="ask"), Message(role="assistant", content="reply"))
    conversations = [
        Conversation(
            id=str(place), messages=messages, source="books", task_type="summary", language="en", licence=licence,
            document_id="x",
        )
        for place, licence in enumerate(licences)
    ]  # fmt: skip
    write_records(tmp_path / "conversations.parquet", conversations, Conversation)
    carry_licences((), tmp_path / "conversations.parquet", tmp_path)
    front = front_matter(dataset_card(tmp_path, title="Long instructions"))
    assert {name: value for name, value in front.items() if name.startswith("license")} == expected
    assert front["task_categories"] == ["text-generation", "question-answering", "summarization"]


def test_card_of_generated_conversations_alone_is_written_and_loaded(tmp_path):
    folder = tmp_path / "product"
    messages = (Message(role="user", content="文档\n\n问题"), Message(role="assistant", content="回答"))
    one = Conversation(
        id="books:1", messages=messages, source="books", task_type="reasoning", language="zh", document_id="books:1",
        model="writer", licence="CC0-1.0", usage={"calls": 2},
    )  # fmt: skip
    write_records(folder / "conversations.parquet", [one], Conversation)
    carry_licences((), folder / "conversations.parquet", folder)
    path = write_dataset_card(folder, title="Long instructions")
    assert front_matter(path.read_text())["license"] == "cc0-1.0"
    assert loaded(folder, tmp_path / "cache")["rows"][0]["messages"][0]["content"] == "文档\n\n问题"
