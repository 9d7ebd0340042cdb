"""What holds for the reader of every format that a recipe can name."""

import bz2
import gzip
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from longalign_core.corpora.readers import READERS
from longalign_core.source_files import SourceFile, list_files
from tests.corpora_inputs import corpus, in_memory, read_all, read_raw, reasons

SAMPLES = {
    "arxiv": "arxiv",
    "books": "books",
    "clue": "clue",
    "json_array": "wudao",
    "json_lines": "c4",
    "mediawiki": "wikipedia",
    "parquet": "parquet",
    "repository": "github",
    "stackexchange": "stackexchange",
    "text": "books",
    "warc": "commoncrawl",
}
"""Folder of files that each format reads. The hub's are its own: see `test_hub`."""
ALSO_READ = {
    "books": {"clue"},  # a text is a text
    "clue": {"books"},
    "text": {"clue"},
    "repository": {"books", "stackexchange"},  # a folder of texts is a source tree
}
NAMES = {
    "arxiv": "a.tar a.gz a.tar.gz a.tex",
    "books": "a.txt a.epub",
    "clue": "a.txt a.txt.gz a.txt.bz2",
    "json_array": "a.json a.json.gz a.json.zst",
    "json_lines": "a.jsonl a.json a.jsonl.gz a.jsonl.bz2 a.jsonl.xz a.jsonl.zst",
    "mediawiki": "a.xml a.xml.gz a.xml.bz2",
    "parquet": "a.parquet",
    "repository": "a.tar a.zip a.tar.gz",
    "stackexchange": "Posts.xml Posts.xml.gz a.7z",
    "text": "a.txt a.md",
    "warc": "a.warc a.warc.gz a.wet.gz",
}
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd.compress}


@pytest.fixture(scope="module")
def samples(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[SourceFile, ...]]:
    """Files of each sample, and one of parquet made of what stands in another."""
    folder = tmp_path_factory.mktemp("parquet")
    found = {one.name: list_files(one).files for one in (test_data / "corpora").iterdir()}
    rows = [{"text": one.text, "url": one.url} for one in read_all(found["c4"], corpus("json_lines"))[0]]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=50)
    return {**found, "parquet": list_files(folder).files}


def test_samples_cover_every_format():
    assert SAMPLES.keys() == NAMES.keys() == READERS.keys() - {"hub"}


@pytest.mark.parametrize(
    ("format", "path"), [(format, path) for format, paths in NAMES.items() for path in paths.split()]
)
def test_any_reader_empty_file_is_one_counted_reject(format, path):
    documents, rejects = read_all([in_memory(path, b"")], corpus(format))
    assert (documents, reasons(rejects)) == ([], ["empty file"])
    assert path in rejects[0].detail


@pytest.mark.parametrize(
    ("format", "path"),
    [(format, path) for format, paths in NAMES.items() for path in paths.split() if Path(path).suffix in PACK],
)
def test_any_reader_file_that_unpacks_to_nothing_is_one_counted_reject(format, path):
    documents, rejects = read_all([in_memory(path, PACK[Path(path).suffix](b""))], corpus(format))
    assert (documents, len(rejects)) == ([], 1)


@pytest.mark.parametrize("format", SAMPLES)
def test_any_reader_over_what_another_format_is_in_rejects_every_file(samples, format):
    for name, files in samples.items():
        if name in {SAMPLES[format]} | ALSO_READ.get(format, set()):
            continue
        documents, rejects = read_all(files, corpus(format))
        assert documents == [], name
        told = " ".join(f"{one.id} {one.detail}" for one in rejects)
        assert all(file.relative_path.rpartition("/")[2] in told for file in files), name


@pytest.mark.parametrize("format", SAMPLES)
def test_any_reader_started_again_inside_its_sample_gives_exactly_the_rest(samples, format):
    config = corpus(format, **({"max_characters": 20_000} if format == "repository" else {}))
    for file in samples[SAMPLES[format]]:
        whole = list(read_raw([file], config))
        positions = [0, *(position for _, position in whole)]
        # Where a shard can end: behind a record that raised the position.
        places = [index for index in range(1, len(positions)) if positions[index] != positions[index - 1]]
        assert places or format == "text"  # one document a file
        for place in {places[-1 - len(places) // step] for step in (2, 100)} if places else ():
            assert list(read_raw([file], config, position=positions[place])) == whole[place:]
