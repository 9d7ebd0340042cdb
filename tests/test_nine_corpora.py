"""All nine native samples through the command line, from files to the drawn documents and their report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from longalign_core.record_files import read_records
from longalign_core.records import Document, Reject
from tests.small_recipe import small_recipe

pytestmark = pytest.mark.slow
CORPORA = {
    "arxiv": {"format": "arxiv"},
    "books": {"format": "books", "max_window_characters": 60_000},
    "c4": {"format": "json_lines", "languages": ["en"]},
    "clue": {"format": "clue", "language": "zh", "languages": ["zh"]},
    "commoncrawl": {"format": "warc", "languages": ["en"], "scrub": ["email"]},
    "github": {"format": "repository", "order": "dependency", "max_characters": 60_000},
    "stackexchange": {"format": "stackexchange", "aggregate_characters": 20_000, "licence": "PSF-2.0"},
    "wikipedia": {"format": "mediawiki", "quality": ["gopher"]},
    "wudao": {"format": "json_array", "language": "zh", "languages": ["zh"], "redistributable": False},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> tuple[str, dict[tuple[str, str], Path]]:
    """What the command printed, and the folder of each artifact by stage and label."""
    folder = tmp_path_factory.mktemp("nine")
    recipe = small_recipe(folder, test_data)
    sections = yaml.safe_load(recipe.read_text())
    sections["corpora"] = [
        {"name": name, "location": str(test_data / "corpora" / name), **fields} for name, fields in CORPORA.items()
    ]
    sections["cleaning"] = {"near_duplicates": 0.8, "containment": 0.8, "decontamination_words": 13}
    sections["selection"] |= {
        "min_tokens": 2_000,
        "max_tokens": 16_000,
        "num_buckets": 4,
        "num_documents": 40,
        "chinese_share": 0.1,
    }
    recipe.write_text(yaml.safe_dump(sections, allow_unicode=True))
    settings = {**os.environ, "LONGALIGN_STORE": str(folder / "store"), "LONGALIGN_SCRATCH": str(folder / "scratch")}
    settings = {name: value for name, value in settings.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "longalign_core.cli", "run", str(recipe), "--until", "select"],
        env={**settings, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folders = {}
    for manifest_file in (folder / "store").glob("*/*/manifest.json"):
        manifest = json.loads(manifest_file.read_text())
        (attempt,) = (one for one in manifest_file.parent.iterdir() if one.is_dir())
        folders[manifest["stage"], manifest["label"]] = attempt
    return done.stdout + done.stderr, folders


def test_every_corpus_gives_documents_with_where_they_came_from(run) -> None:
    _, folders = run
    for name in CORPORA:
        documents = [
            one
            for file in sorted((folders["ingest", name] / "documents").glob("*.parquet"))
            for one in read_records(file, Document)
        ]
        assert documents, name
        assert len({one.id for one in documents}) == len(documents)
        assert all(one.source == name and one.origin and one.text for one in documents)
        language = CORPORA[name].get("language", "en")
        assert {one.language for one in documents} == {language}


def test_known_faults_of_the_samples_are_counted_rejects(run) -> None:
    _, folders = run
    reasons = {
        name: Counter(one.reason for one in read_records(folders["ingest", name] / "rejects.parquet", Reject))
        for name in CORPORA
    }
    assert sum(count for reason, count in reasons["stackexchange"].items() if "fabricated" in reason) == 2
    assert reasons["wikipedia"]["redirect"] > 0
    assert all(reason for counts in reasons.values() for reason in counts)


def test_draw_holds_the_share_of_chinese_and_every_document_is_drawn_or_explained(run) -> None:
    _, folders = run
    drawn = list(read_records(folders["select", ""] / "documents.parquet", Document))
    assert len(drawn) == 40
    assert sum(one.language == "zh" for one in drawn) == 4
    kept = pq.read_table(folders["clean", ""] / "kept.parquet")["id"].to_pylist()
    left_out = [one.id for one in read_records(folders["select", ""] / "rejects.parquet", Reject)]
    assert sorted(kept) == sorted([one.id for one in drawn] + left_out)


def test_table_and_report_are_shown(run) -> None:
    shown, folders = run
    page = (folders["select", ""] / "report.html").read_text("utf-8")
    for name in CORPORA:
        assert name in shown
        assert name in page
    assert "report.html" in shown
    assert "<svg" in page or "data:image/png" in page
    licences = {one["source"]: one for one in json.loads((folders["select", ""] / "licences.json").read_text())}
    assert [name for name, one in licences.items() if not one["redistributable"]] == ["wudao"]
    assert licences["github"]["by_licence"].keys() == {"Apache-2.0"}
