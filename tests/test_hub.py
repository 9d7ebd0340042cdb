"""The hub reader against a hub on loopback, spoken to by the real libraries."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from tests.corpora_inputs import corpus
from tests.fake_hub import REVISION, Repositories, fake_hub

REPOSITORY = Path(__file__).resolve().parent.parent
SCHEMA = pa.schema([("text", pa.string()), ("url", pa.string()), ("title", pa.string()), ("n", pa.int64())])
CONFIGS = b"""---
configs:
- config_name: en
  data_files: en/*.jsonl.gz
- config_name: zh
  data_files: zh/*.jsonl.gz
---
"""
NUM_ROWS = 300  # more than are converted at a time


def parquet(letter: str, num_rows: int) -> bytes:
    rows = [{"text": f"{letter}{n}", "url": f"http://host/{n}", "title": None, "n": n} for n in range(num_rows)]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), stream, row_group_size=90)
    return stream.getvalue()


def json_lines(*rows: object) -> bytes:
    return gzip.compress("\n".join(json.dumps(row) for row in rows).encode())


PILE = [{"text": f"t{n}", "meta": {"pile_set_name": "ArXiv" if n % 2 else "Books3"}} for n in range(4)]
REPOSITORIES: Repositories = {
    "team/rows": {
        "README.md": b"# Rows",
        "data/train-00000-of-00002.parquet": parquet("a", NUM_ROWS),
        "data/train-00001-of-00002.parquet": parquet("b", 3),
    },
    "team/words": {"README.md": CONFIGS, "en/1.jsonl.gz": json_lines({"body": "hello"}, {"body": None}),
                   "zh/1.jsonl.gz": json_lines({"body": "你好"})},
    "team/pile": {"train/1.jsonl.gz": json_lines(*PILE)},
    "team/damaged": {"train/1.jsonl.gz": json_lines(*PILE), "train/2.jsonl.gz": b"\x1f\x8b no gzip"},
    "team/script": {"script.py": b"raise SystemExit"},
    "team/lost": {"train/0.parquet": parquet("a", 3), "train/lost.parquet": parquet("b", 20_000)},
}  # fmt: skip


def location(name: str, revision: str = REVISION) -> str:
    return f"hub:datasets/team/{name}@{revision}"


TASKS: dict[str, dict[str, Any]] = {
    "rows": {"fields": {"location": location("rows")}},
    "words": {"fields": {"location": location("words"), "config_name": "zh", "text_field": "body"}},
    "nulls": {"fields": {"location": location("words"), "config_name": "en", "text_field": "body"}},
    "pile": {"fields": {"location": location("pile"), "pile_set": "ArXiv"}},
    "pile from 2": {"fields": {"location": location("pile"), "pile_set": "ArXiv"}, "position": 2},
    "damaged": {"fields": {"location": location("damaged")}},
    "gone": {"fields": {"location": location("gone")}},
    "revision": {"fields": {"location": location("rows", "f" * 40)}},
    "config": {"fields": {"location": location("words"), "config_name": "de"}},
    "no config": {"fields": {"location": location("words")}},
    "split": {"fields": {"location": location("rows"), "split": "test"}},
    "field": {"fields": {"location": location("rows"), "text_field": "content"}},
    "script": {"fields": {"location": location("script")}},
    "lost": {"fields": {"location": location("lost")}},
    **{
        f"rows from {n}": {"fields": {"location": location("rows")}, "unit": 0, "position": n}
        for n in (1, 89, 255, 256, 257, NUM_ROWS)
    },
}


def carried_out(tasks: dict[str, dict[str, Any]], home: Path) -> dict[str, dict[str, Any]]:
    """What comes of every task: one process does them all, as its imports take seconds."""
    (home / "team" / "rows").mkdir(parents=True)  # a folder of the dataset's name must not be taken for it
    (home / "team" / "rows" / "train.jsonl").write_text('{"text": "not the hub"}')
    with fake_hub(REPOSITORIES, breaks_off="lost") as url:
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home / "home")}
        environment |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            [sys.executable, "-m", "tests.hub_process"],
            input=json.dumps(list(tasks.values())),
            capture_output=True,
            text=True,
            env=environment,
            cwd=home,
        )
    assert done.returncode == 0, done.stderr
    return dict(zip(tasks, json.loads(done.stdout), strict=True))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return carried_out(TASKS, tmp_path_factory.mktemp("hub"))


def texts(outcome: dict[str, Any]) -> list[str]:
    return [record[1] for record in outcome["records"]]


def test_hub_reader_parquet_dataset_gives_every_row_of_every_shard(outcomes):
    rows = outcomes["rows"]
    assert rows["units"] == ["train/00000-of-00002", "train/00001-of-00002"]
    assert texts(rows) == [f"a{n}" for n in range(NUM_ROWS)] + ["b0", "b1", "b2"]
    assert rows["records"][1] == ["train/00000-of-00002#2", "a1", 2, "http://host/1", None]
    assert rows["records"][-1] == ["train/00001-of-00002#3", "b2", 3, "http://host/2", None]


@pytest.mark.parametrize("position", [1, 89, 255, 256, 257, NUM_ROWS])
def test_hub_reader_started_again_at_a_row_gives_exactly_the_rest(outcomes, position):
    whole = outcomes["rows"]["records"][:NUM_ROWS]
    assert outcomes[f"rows from {position}"]["records"] == whole[position:]


def test_hub_reader_takes_the_configuration_and_the_text_field_that_are_named(outcomes):
    assert texts(outcomes["words"]) == ["你好"]
    assert texts(outcomes["nulls"]) == ["hello", "no text"]


def test_hub_reader_pile_set_keeps_its_rows_and_counts_the_others(outcomes):
    assert texts(outcomes["pile"]) == ["t1", "t3", "other Pile sets left out"]
    assert texts(outcomes["pile from 2"]) == ["t3", "other Pile sets left out"]
    assert outcomes["pile"]["records"][-1] == outcomes["pile from 2"]["records"][-1]


def test_hub_reader_damaged_file_is_counted_and_the_others_read(outcomes):
    assert texts(outcomes["damaged"]) == ["t0", "t1", "t2", "t3", "broken shard"]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("gone", ["team/gone", "correct the id"]),
        ("revision", ["f" * 40, "correct the id or the revision"]),
        ("config", ["'de'", "'en', 'zh'", "set config_name"]),
        ("no config", ["'en', 'zh'", "set config_name"]),
        ("split", ["test", "'train'", "set split"]),
        ("field", ["'content'", "text, url, title, n", "set text_field"]),
        ("script", ["team/script", "whose files are data"]),
    ],
)
def test_hub_reader_wrong_name_is_one_sentence_with_what_is_allowed(outcomes, task, said):
    outcome = outcomes[task]
    assert (outcome.get("error"), outcome["records"]) == ("InputError", [])
    for part in said:
        assert part in outcome["message"]
    assert "\n" not in outcome["message"]


def test_hub_reader_connection_lost_in_a_file_is_no_end_of_it(outcomes):
    lost = outcomes["lost"]
    assert lost["error"] == "SourceError"
    assert texts(lost) == ["a0", "a1", "a2"]
    assert "run again" in lost["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"location": "hub:datasets/defunct/the_pile_books3"},
        {"location": f"hub:datasets/someone/Books3-mirror@{REVISION}"},
        {"location": "hub:datasets/EleutherAI/pile", "config_name": "books3"},
        {"location": "hub:datasets/EleutherAI/pile", "pile_set": "Books3"},
    ],
)
def test_hub_corpus_of_books3_is_refused_with_reason_and_alternatives(fields):
    with pytest.raises(ValidationError, match=r"(?s)taken down.*copyright.*Gutenberg.*\.epub"):
        corpus("hub", **fields)


@pytest.mark.parametrize(
    "location", ["hub:org/name", "org/name", "hub:datasets/name", "/data/books", "hub:datasets/a/b@main"]
)
def test_hub_corpus_location_of_another_form_is_refused(location):
    with pytest.raises(ValidationError, match="hub:datasets/org/name"):
        corpus("hub", location=location)


def test_open_corpora_recipe_has_nine_valid_corpora_without_invented_revisions():
    entries = yaml.safe_load((REPOSITORY / "deployments/recipes/open_corpora.yaml").read_text())["corpora"]
    assert len({corpus(**entry).name for entry in entries}) == 9
    assert not any("@" in entry["location"] for entry in entries)
