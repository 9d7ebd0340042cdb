from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from longalign_core.config.batching import EncodingConfig
from longalign_core.record_files import read_records
from longalign_core.records import Reject
from longalign_core.stages.encoding import CONVERSATIONS
from longalign_core.stages.encoding_ranges import RangeJob, encode_range, plan_ranges
from longalign_core.token_store import SequenceRow, TokenStore
from tests.encode_process import RANGE_BYTES, encode_folder, write_conversations, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def conversations(tmp_path_factory) -> Path:
    return write_conversations(tmp_path_factory.mktemp("mixture"), 6_000)


@pytest.fixture(scope="module")
def once(conversations, tokenizer, tmp_path_factory) -> Path:
    """The product of a run in one process."""
    out_dir = tmp_path_factory.mktemp("once")
    encode_folder(conversations, tokenizer, out_dir, workers=1)
    return out_dir


def product(folder: Path) -> dict[str, bytes]:
    """What is committed: names that begin with a dot are not."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each shard whose range is done."""
    numbers = [file.name.split("-")[0] for file in (folder / ".ranges").glob("*-done.json")]
    shards = [folder / f"tokens-{number}.arrow" for number in numbers]
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in shards}


def test_encode_in_ranges_gives_every_conversation_once_and_in_order(once, conversations):
    store = TokenStore.open(once)
    store.verify()
    ranges = plan_ranges(conversations / CONVERSATIONS, range_bytes=RANGE_BYTES)
    assert len(list(once.glob("*.arrow"))) == len(ranges) > 8
    rows = list(read_records(once / "sequences.parquet", SequenceRow))
    rejects = list(read_records(once / "rejects.parquet", Reject))
    assert [row.sequence for row in rows] == list(range(store.num_sequences))
    assert [row.conversation_id for row in rows] == [f"c{number}" for number in range(6_000) if number % 5]
    assert [reject.id for reject in rejects] == [f"c{number}" for number in range(6_000) if number % 5 == 0]
    assert [row.length for row in rows] == store.lengths.tolist()
    assert [row.targets for row in rows] == store.targets.tolist()


@pytest.mark.slow
def test_encode_killed_and_started_again_gives_the_same_bytes_and_keeps_finished_ranges(
    once, conversations, tokenizer, tmp_path
):
    draw = random.Random(0)
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    kept: dict[str, tuple[int, int]] = {}
    for _ in range(2):
        wanted = len(kept) + draw.randint(1, 3)
        command = [sys.executable, "-m", "tests.encode_process", str(conversations), str(tokenizer), str(out_dir)]
        process = subprocess.Popen(command, start_new_session=True)
        while len(finished(out_dir)) < wanted:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        time.sleep(draw.random() * 0.1)
        process.kill()
        process.wait()
        assert not (out_dir / "token_store.json").exists()
        now = finished(out_dir)
        assert kept.items() <= now.items()
        kept = now
    encode_folder(conversations, tokenizer, out_dir, workers=2)
    assert kept.items() <= finished(out_dir).items()
    assert product(out_dir) == product(once)


def test_encode_finished_range_whose_shard_was_damaged_is_made_anew(once, conversations, tokenizer, tmp_path):
    encode_folder(conversations, tokenizer, tmp_path, workers=1)
    before = finished(tmp_path)
    damaged = tmp_path / "tokens-00002.arrow"
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"?" * 9)
    encode_folder(conversations, tokenizer, tmp_path, workers=1)
    assert product(tmp_path) == product(once)
    assert {name for name, mark in finished(tmp_path).items() if mark != before[name]} == {damaged.name}


def test_encode_range_without_a_sequence_leaves_its_rejects_and_no_shard(tokenizer, tmp_path):
    conversations = write_conversations(tmp_path / "mixture", 3_000, answered=lambda number: number >= 2_000)
    ranges = plan_ranges(conversations / CONVERSATIONS, range_bytes=RANGE_BYTES)
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    counts = encode_folder(conversations, tokenizer, out_dir, workers=1)
    assert (counts["sequences"], counts["rejects"], counts["rejects: no target"]) == (1_000, 2_000, 2_000)
    assert 0 < len(list(out_dir.glob("*.arrow"))) < len(ranges)
    store = TokenStore.open(out_dir)
    ids, is_target = store.sequence(0)
    (first, *_) = read_records(out_dir / "sequences.parquet", SequenceRow)
    assert first.conversation_id == "c2000"
    assert (first.length, first.targets) == (len(ids), is_target.sum())


def test_encode_range_in_a_process_that_lives_on_takes_the_tokenizer_that_is_there_now(tokenizer, tmp_path):
    folder = tmp_path / "tokenizer"
    shutil.copytree(tokenizer, folder)
    conversations = write_conversations(tmp_path / "mixture", 20)

    def job(name: str) -> RangeJob:
        (tmp_path / name).mkdir()
        return RangeJob(
            number=0,
            conversations=conversations / CONVERSATIONS,
            row_groups=(0,),
            config=EncodingConfig(tokenizer=str(folder)),
            tokenizer=folder,
            vocabulary=1_000,
            out_dir=tmp_path / name,
            num_processes=1,
        )

    first, again = encode_range(job("first")), encode_range(job("again"))
    assert first is not None and again is not None
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", "!<|im_end|>"))
    changed = encode_range(job("changed"))
    assert changed is not None
    assert first.sha256 == again.sha256 != changed.sha256


def test_plan_ranges_puts_every_row_group_into_one_range_in_order(conversations):
    file = conversations / CONVERSATIONS
    for range_bytes in (1, 1 << 18, 1 << 30):
        ranges = plan_ranges(file, range_bytes=range_bytes)
        assert [group for groups in ranges for group in groups] == list(range(pq.read_metadata(file).num_row_groups))
    assert len(ranges) == 1
