import dataclasses
import json
import os

import pytest
from rich.console import Console

from benchmarks import ingest
from benchmarks.ingest_inputs import write_json_array, write_packed_json_lines, write_wet
from benchmarks.ingest_probe import corpus, measure, read_units
from benchmarks.measuring import Comparison, compare
from longalign_core.corpora.readers import READERS

TINY = dataclasses.replace(
    ingest.QUICK,
    speed_bytes=100_000,
    turns=1,
    small_bytes=100_000,
    large_bytes=200_000,
    vocabulary=300,
    num_counted=3,
)


@pytest.fixture
def cores():
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.slow
def test_ingest_benchmark_tiny_sizes_give_every_figure(test_data, cores, monkeypatch):
    monkeypatch.setenv("LONGALIGN_TEST_DATA", str(test_data))
    figures = json.loads(json.dumps(ingest.run(TINY, Console(quiet=True))))
    assert set(figures["speed_vs_parser"]) == {"jsonl", "parquet", "warc"} & ({"jsonl", "parquet"} | set(READERS))
    assert figures["count_vs_tokenizers"] > 0
    assert figures["memory_growth"] == max(figures["memory_growth_by_input"].values()) > 0.5
    assert set(figures["samples"]) <= set(READERS)
    assert figures["device"]


def test_comparison_ratio_is_of_medians():
    found = Comparison((2.0, 4.0, 90.0), (1.0, 2.0, 2.0), (2.0, 4.0), (1.0, 3.0))
    assert (found.speed_ratio, found.cpu_ratio) == (0.5, 0.5)


def test_compare_unequal_work_is_refused():
    with pytest.raises(AssertionError, match="same work"):
        compare(lambda: 1, lambda: 2, turns=1)


@pytest.mark.parametrize(
    ("format", "name", "write"),
    [
        ("json_lines", "a.jsonl.gz", write_packed_json_lines),
        ("json_array", "a.json", write_json_array),
        ("warc", "a.wet.gz", write_wet),
    ],
)
def test_ingest_benchmark_inputs_are_read_without_rejects(test_data, tmp_path, monkeypatch, format, name, write):
    monkeypatch.setenv("LONGALIGN_TEST_DATA", str(test_data))
    config = corpus(format=format, location=str(write(tmp_path / name, 50_000)))
    texts = [record.text for record in read_units(config)]
    found = measure("read", config)
    assert (found.documents, found.rejects) == (len(texts), 0)
    assert found.text_bytes == sum(len(text.encode()) for text in texts)
