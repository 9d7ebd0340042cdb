import orjson

from longalign_core.corpora.reading import Unit
from longalign_core.corpora.shards import ShardJob, read_shard
from longalign_core.source_files import SourceFile
from tests.corpora_inputs import corpus, in_memory


def test_read_shard_reads_a_file_once_however_many_parts_it_fills(tmp_path):
    file = in_memory("a.jsonl", b"".join(orjson.dumps({"text": f"row {number} " * 20}) + b"\n" for number in range(50)))
    opened = []

    def counted():
        opened.append(file.relative_path)
        return file.open()

    unit = Unit("a.jsonl", (SourceFile("a.jsonl", file.size, counted),))
    state = read_shard(ShardJob(0, (unit,), corpus("json_lines"), tmp_path / "shard", part_characters=500))
    assert (state.num_documents, state.is_done) == (50, True)
    assert state.num_parts > 10
    assert opened == ["a.jsonl"]
