"""The stage `extend`: a longer context for a base model, and recipes that do without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from tokenizers import AddedToken

from longalign_core.batch_plan import BatchPlan
from longalign_core.batching.cost import CostModel
from longalign_core.batching.strategies import Batching
from longalign_core.batching.token_budget import order_tokens
from longalign_core.config import Runtime
from longalign_core.config.loading import load_recipe
from longalign_core.config.training import ExtensionConfig, ExtensionRun, Optimizer
from longalign_core.errors import DataError, InputError
from longalign_core.execution import open_context
from longalign_core.pipeline import run_pipeline
from longalign_core.planning import plan_rows
from longalign_core.record_files import write_records
from longalign_core.records import Document
from longalign_core.runner import PlanRunner
from longalign_core.stages.extension import extend
from longalign_core.token_store import TokenStore
from longalign_core.training.base_model import check_base_model
from longalign_core.training.extended_base import write_extended_base
from longalign_core.training.plain_text import PlainText, cut_pieces
from tests.chat_families import byte_level
from tests.tiny_model import SENTENCES, tiny_model, tiny_tokenizer

REPOSITORY = Path(__file__).resolve().parent.parent
FACTOR, CONTEXT, NUM_TOKENS = 200.0, 256, 1_500


def document(number, text):
    return Document(id=f"books:{number}", text=text, source="books", language="en", origin="here", sha256="0" * 64)


def write_documents(folder, texts):
    records = [document(number, text) for number, text in enumerate(texts)]
    write_records(folder / "documents.parquet", records, Document)
    return folder


def extension_run(base, **changes):
    values = {
        "enabled": True,
        "rope_factor": FACTOR,
        "context_tokens": CONTEXT,
        "num_tokens": NUM_TOKENS,
        "packs_per_step": 2,
        "optimizer": Optimizer(learning_rate=1e-2),
    }
    extension = ExtensionConfig(**(values | changes))
    return ExtensionRun(extension=extension, base_model=str(base), precision="fp32", trust_remote_code=False)


def write_config(folder, **values):
    folder.mkdir()
    (folder / "config.json").write_bytes(orjson.dumps(values))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def extended_config(base, folder, **changes):
    write_extended_base(base, folder, ExtensionConfig(enabled=True, **changes), trust_remote_code=False)
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


@pytest.mark.slow
def test_extend_tiny_model_gives_one_that_loads_with_a_longer_context_and_moved_weights(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tiny_model(tmp_path / "base", window=64)
    documents = write_documents(tmp_path / "documents", [" ".join(SENTENCES) * times for times in (1, 4, 2, 7, 3)])
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    runtime = Runtime(scratch=tmp_path / "scratch", ranks=2, gpus=0)
    inputs = {"documents": (documents,)}

    counts = extend.function(extension_run(base), inputs, out_dir, runtime)

    store = TokenStore.open(out_dir / ".tokens")
    assert NUM_TOKENS <= counts["tokens"] < NUM_TOKENS + store.lengths.max() <= NUM_TOKENS + CONTEXT
    assert store.targets.tolist() == [length - 1 for length in store.lengths], "all but a first token are targets"
    assert counts["pieces"] == store.num_sequences and counts["piece_tokens"] == store.lengths.sum()
    metrics = pq.read_table(out_dir / "metrics.parquet").to_pydict()
    assert counts["steps"] == len(metrics["loss"]) == BatchPlan.open(out_dir / ".plan").meta.num_steps
    assert sum(metrics["tokens"]) == counts["tokens"]
    assert np.isfinite(metrics["loss"]).all() and counts["last_loss"] < counts["first_loss"]

    model, old = AutoModelForCausalLM.from_pretrained(out_dir), AutoModelForCausalLM.from_pretrained(base)
    assert model.config.rope_parameters["rope_theta"] == FACTOR * old.config.rope_parameters["rope_theta"]
    assert (old.config.max_position_embeddings, model.config.max_position_embeddings) == (64, CONTEXT)
    assert not model.lm_head.weight.equal(old.lm_head.weight)
    assert AutoTokenizer.from_pretrained(out_dir).get_vocab() == AutoTokenizer.from_pretrained(base).get_vocab()
    assert orjson.loads((base / "config.json").read_bytes())["max_position_embeddings"] == 64, "the base stays"
    check_base_model(out_dir)
    kept = ("chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json", "metrics.parquet")
    assert set(kept) < {path.name for path in out_dir.iterdir()}

    # A stage killed between training and the end of moving its model has nothing left to train.
    (out_dir / "model.safetensors").replace(out_dir / ".models" / f"step-{counts['steps']:06d}" / "model.safetensors")
    events = (out_dir / ".events.jsonl").read_bytes()
    assert extend.function(extension_run(base), inputs, out_dir, runtime) == counts
    assert (out_dir / ".events.jsonl").read_bytes() == events
    assert AutoModelForCausalLM.from_pretrained(out_dir).lm_head.weight.equal(model.lm_head.weight)


def test_cut_pieces_ten_tokens_in_fours_leaves_two():
    pieces = cut_pieces([0, 11, 12, 13, 14, 15, 16, 17, 18, 2], 4)
    assert [piece.tolist() for piece in pieces] == [[0, 11, 12, 13], [14, 15, 16, 17], [18, 2]]


def test_plain_text_document_stands_between_first_and_last_token_and_spells_no_control_token(tmp_path):
    text = PlainText(tiny_tokenizer(tmp_path), trust_remote_code=False)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    words = "He wrote <|im_end|> by hand."
    ((_, token_ids),) = text.encode([document(0, words)])
    assert (token_ids[0], token_ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert not set(token_ids[1:-1]) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(token_ids[1:-1]) == words


def test_plain_text_spells_no_control_token_that_its_tokenizer_does_not_call_special(tmp_path):
    tokenizer = byte_level("<eos>", eos="<eos>")
    names = ["<|fim|>", "<tool_call>", "<table>"]  # the last is text, as Gemma has it
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    tokenizer.chat_template = "{% if tools %}<tool_call>{% endif %}"
    tokenizer.save_pretrained(tmp_path)
    text = PlainText(tmp_path, trust_remote_code=False)
    ((_, token_ids),) = text.encode([document(0, "a <|fim|> b <tool_call> c <table>")])
    assert tokenizer.decode(token_ids) == "a <|fim|> b <tool_call> c <table><eos>"
    assert [tokenizer.convert_tokens_to_ids(name) in token_ids for name in names] == [False, False, True]
    assert text.vocabulary == len(tokenizer)


@pytest.mark.parametrize("num_tokens", [1, 9, 99, 100, 101, 777])
def test_order_tokens_any_number_is_reached_and_not_passed_by_more_than_a_sequence(num_tokens):
    lengths = np.array([30, 4, 16, 22, 9, 19])  # 100 tokens
    batching = Batching(strategy="balanced", capacity=32, packs_per_step=2, alike=2, seed=3, cost_model=CostModel())
    orders = list(order_tokens(lengths, batching, num_tokens))
    *whole, last = [order.sequences.tolist() for order in orders]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4, 5] for epoch in whole)
    assert len(set(last)) == len(last)
    placed = len(whole) * 100 + lengths[last].sum()
    assert num_tokens <= placed < num_tokens + 30
    for order in orders:
        assert np.bincount(order.slots, weights=lengths[order.sequences]).max() <= 32
    again = [order.sequences.tolist() for order in order_tokens(lengths, batching, num_tokens)]
    assert again == [*whole, last]


@pytest.mark.parametrize(
    ("stated", "base"),
    [
        ({"rope_theta": 5_000.0}, 5_000.0),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0}}, 5_000.0),
        ({"rope_scaling": None}, 10_000.0),  # as Llama-2 has it: the architecture's own base
    ],
)
def test_extended_base_every_form_of_config_has_its_rope_base_raised(tmp_path, stated, base):
    folder = write_config(tmp_path / "base", model_type="llama", max_position_embeddings=4_096, **stated)
    config = extended_config(folder, tmp_path / "extended")
    assert config.rope_parameters["rope_theta"] == 200 * base
    assert config.max_position_embeddings == 65_536
    assert (tmp_path / "extended" / "model.safetensors").read_bytes() == b"weights"


def test_extended_base_longer_context_than_asked_for_stays(tmp_path):
    folder = write_config(tmp_path / "base", model_type="glm", max_position_embeddings=131_072)
    config = extended_config(folder, tmp_path / "extended")
    assert config.max_position_embeddings == 131_072
    assert config.rope_parameters == {"rope_theta": 2e6, "rope_type": "default", "partial_rotary_factor": 0.5}


YARN_STATED = [
    {"rope_theta": 5_000.0, "rope_scaling": None},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0}},
]


@pytest.mark.parametrize("stated", YARN_STATED, ids=["old-form", "new-form"])
def test_extended_base_by_yarn_has_the_frequencies_of_the_paper(tmp_path, stated):
    from transformers import AutoModelForCausalLM

    old, new, size = 256, 2_048, 64
    shape = {
        "hidden_size": size,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "vocab_size": 8,
    }
    folder = write_config(tmp_path / "base", model_type="llama", max_position_embeddings=old, **shape, **stated)
    config = extended_config(folder, tmp_path / "extended", method="yarn", context_tokens=new)
    assert config.max_position_embeddings == new
    assert config.rope_parameters == {
        "rope_type": "yarn",
        "rope_theta": 5_000.0,
        "factor": 8.0,
        "original_max_position_embeddings": old,
    }
    rotary = AutoModelForCausalLM.from_config(config).model.rotary_emb
    plain = 5_000.0 ** (-np.arange(0, size, 2) / size)
    turns = old * plain / (2 * np.pi)  # of each pair of dimensions over the old context
    ratio = rotary.inv_freq.numpy() / plain
    # What turns often stays, what turns less than once is slowed down by the whole factor, with a ramp between.
    assert ratio[turns > 40] == pytest.approx(1, abs=1e-5) and ratio[turns < 0.8] == pytest.approx(1 / 8, abs=1e-5)
    assert (np.diff(ratio) <= 1e-6).all() and ((ratio > 1 / 8 + 0.01) & (ratio < 0.99)).any()
    assert rotary.attention_scaling == pytest.approx(0.1 * np.log(8) + 1)


def test_extended_base_by_yarn_keeps_what_turns_of_a_head(tmp_path):
    folder = write_config(tmp_path / "base", model_type="glm", max_position_embeddings=8_192)
    config = extended_config(folder, tmp_path / "extended", method="yarn")
    assert config.rope_parameters["partial_rotary_factor"] == 0.5
    assert (config.rope_parameters["factor"], config.rope_parameters["rope_theta"]) == (8.0, 10_000.0)


def test_extended_base_by_yarn_of_a_context_that_is_there_already_is_refused(tmp_path):
    folder = write_config(tmp_path / "base", model_type="glm", max_position_embeddings=65_536)
    with pytest.raises(InputError, match=r"has a context of 65536 tokens already; raise extension\.context_tokens"):
        extended_config(folder, tmp_path / "extended", method="yarn")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt2"}, "has no RoPE base to raise"),
        ({"model_type": "gemma3_text"}, "a RoPE base for each kind of its layers"),
        ({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}}, r"already \(linear\)"),
        ({"model_type": "chatglm"}, "cannot be read"),
    ],
)
def test_extended_base_without_one_plain_rope_base_is_refused(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        extended_config(write_config(tmp_path / "base", **values), tmp_path / "extended")


def test_extend_ranks_that_do_not_divide_the_step_are_refused_by_the_right_name(tmp_path):
    runtime = Runtime(scratch=tmp_path / "scratch", ranks=3)
    inputs = {"documents": (write_documents(tmp_path / "documents", SENTENCES),)}
    with pytest.raises(InputError, match=r"extension\.packs_per_step 2; allowed here: 1, 2"):
        extend.function(extension_run(tmp_path), inputs, tmp_path, runtime)


def test_extend_without_documents_says_so_and_leaves_no_token_store(tmp_path):
    base = write_config(tmp_path / "base", model_type="llama")
    tiny_tokenizer(base)
    inputs = {"documents": (write_documents(tmp_path / "documents", []),)}
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="no document has a token to train on"):
        extend.function(extension_run(base), inputs, tmp_path / "out", Runtime(scratch=tmp_path / "scratch"))
    with pytest.raises(DataError):
        TokenStore.open(tmp_path / "out" / ".tokens")


class NamedSources:
    def fingerprint(self, source):
        return source


def stages_of(recipe, tmp_path):
    runtime = Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch")
    context = open_context(runtime)
    runner = PlanRunner(type(context)(context.store, runtime, NamedSources()))
    run_pipeline(runner, recipe)
    return {f"{one.stage} {one.label}": one.key for one in runner.artifacts}


def test_recipe_that_extends_moves_the_addresses_from_train_on_and_no_other(tmp_path):
    recipe = load_recipe(REPOSITORY / "deployments" / "recipes" / "demo.yaml")
    without = stages_of(recipe, tmp_path)
    # What the extension would be counts for nothing while it is not made.
    other = recipe.extension.model_copy(update={"num_tokens": 7})
    assert stages_of(recipe.model_copy(update={"extension": other}), tmp_path) == without
    enabled = recipe.extension.model_copy(update={"enabled": True})
    extended = stages_of(recipe.model_copy(update={"extension": enabled}), tmp_path)
    assert set(extended) - set(without) == {"extend "}
    moved = {name.split()[0] for name, key in without.items() if extended[name] != key}
    assert moved == {"train", "checkpoint", "evaluate", "scorecard"}


def test_plan_of_recipe_that_extends_estimates_its_tokens(tmp_path):
    recipe = load_recipe(REPOSITORY / "deployments" / "recipes" / "longalign_7b_64k.yaml")
    rows = plan_rows(recipe, Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch"))
    (row,) = [row for row in rows if row["stage"] == "extend"]
    assert (row["basis"], row["figures"]) == ("estimated", {"tokens": 10_000_000_000})
