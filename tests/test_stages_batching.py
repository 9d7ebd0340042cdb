from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from longalign_core.batch_plan import BatchPlan
from longalign_core.batching.tables import planned_view
from longalign_core.config.batching import BatchingConfig, EncodingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError, InputError
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Message, Reject
from longalign_core.stages.batching import batches
from longalign_core.stages.encoding import encode
from longalign_core.token_store import SequenceRow, TokenStore, TokenStoreWriter

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RUNTIME = Runtime(store="unused")


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["what does the document say about the word and the answer"] * 10, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=TEMPLATE).save_pretrained(
        folder
    )
    return folder


def chat(id: str, *contents: str, document_id: str | None = None) -> Conversation:
    messages = tuple(
        Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(contents)
    )
    return Conversation(
        id=id, messages=messages, source="books", task_type="chat", language="en", document_id=document_id
    )


def make(folder: Path, *conversations: Conversation) -> dict[str, tuple[Path, ...]]:
    write_records(folder / "conversations.parquet", conversations, Conversation)
    return {"conversations": (folder,)}


@pytest.fixture
def inputs(tmp_path):
    many = [chat(f"short-{number}", "what? " * (number % 7 + 1), "word " * (number % 5 + 1)) for number in range(40)]
    return make(
        tmp_path / "mixture",
        chat("long", "document " * 500 + "\n\nwhat does it say?", "the answer", document_id="books/1"),
        chat("odd", "what?"),
        *many,
        chat("empty", "what?", ""),
    )


def test_encode_stage_stores_sequences_and_keeps_rejects(inputs, tokenizer_folder, tmp_path):
    config = EncodingConfig(tokenizer=str(tokenizer_folder), max_tokens=128)
    counts = encode.function(config, inputs, tmp_path / "out", RUNTIME)
    store = TokenStore.open(tmp_path / "out")
    rows = list(read_records(tmp_path / "out" / "sequences.parquet", SequenceRow))
    assert [row.sequence for row in rows] == list(range(41))
    assert [row.length for row in rows] == store.lengths.tolist()
    assert [row.targets for row in rows] == store.targets.tolist()
    assert (rows[0].conversation_id, rows[0].document_id, rows[0].source) == ("long", "books/1", "books")
    assert rows[0].length == 128 and rows[0].cut_tokens > 300 and rows[1].document_id is None
    rejects = {reject.id: reject for reject in read_records(tmp_path / "out" / "rejects.parquet", Reject)}
    assert {name: reject.reason for name, reject in rejects.items()} == {"odd": "turns", "empty": "no target"}
    assert counts == {
        "sequences": 41,
        "tokens": int(store.lengths.sum()),
        "target_tokens": int(store.targets.sum()),
        "shortened": 1,
        "cut_tokens": rows[0].cut_tokens,
        "rejects": 2,
        "rejects: no target": 1,
        "rejects: turns": 1,
    }
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    ids, is_target = store.sequence(0)
    assert tokenizer.decode(ids[is_target]) == "the answer<|im_end|>"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == TEMPLATE


def test_encode_stage_killed_half_way_and_started_again_gives_the_same_bytes(inputs, tokenizer_folder, tmp_path):
    config = EncodingConfig(tokenizer=str(tokenizer_folder), max_tokens=128)
    encode.function(config, inputs, tmp_path / "once", RUNTIME)
    again = tmp_path / "again"
    again.mkdir()
    for name in ("tokens-00000.arrow.part", "tokens-00007.arrow", "sequences.parquet.part", "token_store.json"):
        (again / name).write_bytes(b"half written")
    encode.function(config, inputs, again, RUNTIME)
    once = {file.name: file.read_bytes() for file in (tmp_path / "once").iterdir() if file.is_file()}
    assert {file.name: file.read_bytes() for file in again.iterdir() if file.is_file()} == once


def test_encode_stage_nothing_to_encode_is_refused(tokenizer_folder, tmp_path):
    config = EncodingConfig(tokenizer=str(tokenizer_folder))
    with pytest.raises(DataError, match="no conversation could be encoded; the first: conversation odd"):
        encode.function(config, make(tmp_path / "mixture", chat("odd", "what?")), tmp_path / "out", RUNTIME)
    with pytest.raises(DataError):
        TokenStore.open(tmp_path / "out")


@pytest.mark.parametrize("strategy", ["naive", "sorted", "longalign", "bfd", "balanced"])
def test_batches_stage_places_every_sequence_once_an_epoch(inputs, tokenizer_folder, tmp_path, strategy):
    config = EncodingConfig(tokenizer=str(tokenizer_folder), max_tokens=128)
    encode.function(config, inputs, tmp_path / "tokens", RUNTIME)
    batching = BatchingConfig(strategy=strategy, capacity=128, packs_per_step=4, alike=2, epochs=3, seed=5)
    counts = batches.function(batching, {"tokens": (tmp_path / "tokens",)}, tmp_path / "plan", RUNTIME)
    plan, store = BatchPlan.open(tmp_path / "plan"), TokenStore.open(tmp_path / "tokens")
    assert (plan.meta.strategy, plan.meta.alike, plan.meta.epochs, plan.meta.seed) == (strategy, 2, 3, 5)
    placed: Counter[int] = Counter()
    for step in range(plan.meta.num_steps):
        slots = plan.slots(step)
        assert len(slots) == 4
        for slot in slots:
            filled = 0
            for placement in slot:
                assert placement.offset == filled
                assert placement.length == store.lengths[placement.sequence]
                assert placement.targets == store.targets[placement.sequence]
                filled += placement.length
                placed[placement.sequence] += 1
            assert filled <= 128
    assert placed == dict.fromkeys(range(store.num_sequences), 3)
    report = json.loads((tmp_path / "plan" / "report.json").read_text())
    assert list(report["idle"]) == ["1", "2", "4"]
    assert counts["steps"] == plan.meta.num_steps == report["steps"]
    assert counts["utilisation"] == pytest.approx(report["utilisation"], abs=1e-6)
    assert sorted(file.name for file in (tmp_path / "plan").iterdir()) == [
        "plan.json",
        "plan.parquet",
        "report.html",
        "report.json",
    ]


@pytest.mark.parametrize(
    ("strategy", "packs_per_step", "slots"),
    [
        ("balanced", 4, {"naive": 12, "longalign": 4, "balanced": 4}),
        ("longalign", 4, {"naive": 12, "longalign": 4}),
        # Three sequences fit into a pack, so four packs of the reference's make the step of twelve.
        ("sorted", 12, {"naive": 12, "sorted": 12, "longalign": 4}),
    ],
)
def test_batches_stage_page_shows_the_plan_beside_baselines_of_like_steps(tmp_path, strategy, packs_per_step, slots):
    with TokenStoreWriter(tmp_path / "tokens") as writer:
        for _ in range(48):
            writer.append(np.full(10, 5), np.arange(10) >= 5)
    config = BatchingConfig(strategy=strategy, capacity=30, packs_per_step=packs_per_step, alike=4)
    batches.function(config, {"tokens": (tmp_path / "tokens",)}, tmp_path / "plan", RUNTIME)
    report = json.loads((tmp_path / "plan" / "report.json").read_text())
    assert {row["strategy"]: row["slots_per_step"] for row in report["compared"]} == slots
    assert all(row["ranks"] == 4 for row in report["compared"])
    page = (tmp_path / "plan" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert f"<h1>{strategy}: packs" in page
    assert all(f'<th scope="row">{name}</th>' in page for name in slots)
    assert "http" not in page.replace("http://www.w3.org", "")
    console = Console(width=100, file=io.StringIO())
    console.print(planned_view(tmp_path / "plan"))
    shown = console.file.getvalue()
    assert all(shown.count(f" {name} ") == 1 for name in slots), shown


def test_batches_stage_run_twice_gives_the_same_bytes(inputs, tokenizer_folder, tmp_path):
    encode.function(EncodingConfig(tokenizer=str(tokenizer_folder)), inputs, tmp_path / "tokens", RUNTIME)
    for name in ("a", "b"):
        batches.function(BatchingConfig(capacity=4096), {"tokens": (tmp_path / "tokens",)}, tmp_path / name, RUNTIME)
    for name in ("plan.parquet", "plan.json", "report.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_batches_stage_alike_left_out_means_the_whole_step(inputs, tokenizer_folder, tmp_path):
    encode.function(EncodingConfig(tokenizer=str(tokenizer_folder)), inputs, tmp_path / "tokens", RUNTIME)
    batches.function(BatchingConfig(capacity=4096), {"tokens": (tmp_path / "tokens",)}, tmp_path / "plan", RUNTIME)
    assert BatchPlan.open(tmp_path / "plan").meta.alike == 8


def test_batches_stage_capacity_below_the_longest_sequence_is_refused(inputs, tokenizer_folder, tmp_path):
    encode.function(EncodingConfig(tokenizer=str(tokenizer_folder)), inputs, tmp_path / "tokens", RUNTIME)
    longest = int(np.argmax(TokenStore.open(tmp_path / "tokens").lengths))
    with pytest.raises(InputError, match=f"sequence {longest} has .* but a pack holds 64"):
        batches.function(BatchingConfig(capacity=64), {"tokens": (tmp_path / "tokens",)}, tmp_path / "plan", RUNTIME)


def test_batches_stage_loss_of_an_epoch_weighs_sequences_alike_with_the_epochs_mean(inputs, tokenizer_folder, tmp_path):
    encode.function(EncodingConfig(tokenizer=str(tokenizer_folder)), inputs, tmp_path / "tokens", RUNTIME)
    config = BatchingConfig(capacity=2048, packs_per_step=3, normaliser="epoch", epochs=1)
    batches.function(config, {"tokens": (tmp_path / "tokens",)}, tmp_path / "plan", RUNTIME)
    plan = BatchPlan.open(tmp_path / "plan")
    weights = [
        scale * placement.targets
        for step in range(plan.meta.num_steps)
        for slot, scales in zip(plan.slots(step), plan.loss_scales(step), strict=True)
        for placement, scale in zip(slot, scales, strict=True)
    ]
    assert weights == pytest.approx([plan.meta.num_steps / 41] * 41)
    assert pq.read_table(tmp_path / "plan" / "plan.parquet").num_rows == 41


def test_encode_of_texts_that_may_not_be_passed_on_is_marked(tmp_path, tokenizer_folder):
    inputs = make(tmp_path / "in", chat("a", "ask", "reply"))
    rows = [{"source": "books", "licence": None, "redistributable": False, "records": 1, "by_licence": {}}]
    (tmp_path / "in" / "licences.json").write_text(json.dumps(rows))
    config = EncodingConfig(tokenizer=str(tokenizer_folder), max_tokens=100)
    counts = encode.function(config, inputs, tmp_path / "out", RUNTIME)
    assert counts["not redistributable"] == "books"
    (told,) = json.loads((tmp_path / "out" / "licences.json").read_text())
    assert (told["source"], told["redistributable"], told["records"]) == ("books", False, 1)
