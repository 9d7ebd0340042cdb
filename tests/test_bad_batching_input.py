"""Wrong input from conversations to batch plans: one sentence that names the record and what to change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from longalign_core.batching.cost import CostModel
from longalign_core.batching.simulate import simulate_batches
from longalign_core.batching.strategies import STRATEGIES, Batching, order_epochs
from longalign_core.batching.token_budget import order_tokens
from longalign_core.config.batching import BatchingConfig, EncodingConfig
from longalign_core.config.loading import load_recipe
from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError, InputError
from longalign_core.recipe_checks import check_inputs
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Message, Reject
from longalign_core.stages.batching import batches
from longalign_core.stages.encoding import encode
from longalign_core.token_store import TokenStore, TokenStoreWriter
from tests.test_cli import DEMO, REPOSITORY, longalign, refused
from tests.tiny_model import tiny_tokenizer

RUNTIME = Runtime(store="unused")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def bare_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer without a chat template, as of a base model."""
    folder = tiny_tokenizer(tmp_path_factory.mktemp("bare"))
    (folder / "chat_template.jinja").unlink()
    return folder


def batching(**options) -> Batching:
    values = {"strategy": "balanced", "capacity": 64, "packs_per_step": 4, "alike": 2, "seed": 0}
    return Batching(cost_model=CostModel(), **(values | options))


def conversation(id: str, *roles: str) -> Conversation:
    messages = tuple(Message(role=role, content=f"words of the {role}") for role in roles)
    return Conversation(id=id, messages=messages, source="books", task_type="chat", language="en")


# Lengths and steps, through the functions that order and write.


@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize(
    ("lengths", "kind", "expected"),
    [
        ([5, 64, 0, 3, 0], DataError, "sequence 2 has 0 tokens; leave out"),
        ([5, -7, 3], DataError, "sequence 1 has -7 tokens; leave out"),
        ([5, 64, 65], InputError, "sequence 2 has 65 tokens but a pack holds 64; lower .* or raise"),
        ([], DataError, "no sequence"),
    ],
)
def test_order_of_lengths_that_no_plan_can_hold_names_the_sequence(strategy, lengths, kind, expected):
    tokens = np.array(lengths, dtype=np.int64)
    with pytest.raises(kind, match=expected):
        next(order_epochs(tokens, batching(strategy=strategy), epochs=1))
    with pytest.raises(kind, match=expected):
        next(order_tokens(tokens, batching(strategy=strategy), num_tokens=10))


@pytest.mark.parametrize("kind", ["float32", "float64", "bool", "object", "str"])
def test_order_of_lengths_that_are_no_integers_is_refused_rather_than_cut(kind):
    tokens = np.array([5, 7, 3]).astype(kind)
    with pytest.raises(DataError, match=r"no whole numbers but of .*; give an array of integers"):
        next(order_epochs(tokens, batching(), epochs=1))
    with pytest.raises(DataError, match=r"no whole numbers but of .*; give an array of integers"):
        next(order_tokens(tokens, batching(), num_tokens=10))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"packs_per_step": 0}, "packs_per_step is 0; give a number from 1 up"),
        ({"alike": 0}, "alike is 0; give a number from 1 up"),
        ({"alike": 3}, "alike 3 does not divide packs_per_step 4; choose one of its divisors"),
        ({"alike": 8}, "alike 8 does not divide packs_per_step 4; choose one of its divisors"),
    ],
)
def test_batching_impossible_steps_are_refused(options, expected):
    with pytest.raises(InputError, match=expected):
        batching(**options)


# The recipe: refused when it is read, before any work.


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("batching.packs_per_step=0", ["batching.packs_per_step", "1", "found 0"]),
        ("batching.alike=3", ["alike 3 does not divide packs_per_step", "choose one of its divisors"]),
        ("batching.alike=0", ["batching.alike", "found 0"]),
        ("batching.capacity=0", ["batching.capacity", "found 0"]),
        (
            "batching.capacity=100",
            ["encoding.max_tokens", "is above batching.capacity 100", "lower the first or raise"],
        ),
        ("batching.alpha=1.5", ["batching.alpha", "found 1.5"]),
        ("batching.seed=-1", ["batching.seed", "found -1"]),
        ("batching.normaliser=token", ["batching.normaliser", "step", "epoch", "pack", "'token'"]),
        ("batching.strategy=best", ["batching.strategy", "naive", "balanced", "'best'"]),
        ("encoding.max_tokens=2", ["encoding.max_tokens", "found 2"]),
        ("encoding.template=mine", ["encoding.template", "llama-2", "'mine'"]),
    ],
)
def test_recipe_with_impossible_settings_is_one_sentence(override, expected):
    with pytest.raises(InputError) as caught:
        load_recipe(REPOSITORY / DEMO, [override])
    said = str(caught.value)
    assert "\n" not in said
    for part in expected:
        assert part in said


def recipe_with(folder: Path, tokenizer: Path) -> Path:
    sections = yaml.safe_load((REPOSITORY / DEMO).read_text())
    (folder / "books").mkdir()
    (folder / "books" / "one.txt").write_text("A book says little. " * 200)
    sections["corpora"] = [{"name": "books", "format": "text", "location": "books"}]
    sections["selection"]["tokenizer"] = sections["training"]["base_model"] = str(tokenizer)
    sections["instruct"]["generator"]["checkpoint"] = None
    sections["encoding"] = {"tokenizer": str(tokenizer), "max_tokens": 1000}
    sections["mixture"]["sets"] = []
    sections["evaluation"] = {"suites": []}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def test_run_with_a_tokenizer_without_template_stops_before_any_work(bare_tokenizer, tmp_path):
    recipe = recipe_with(tmp_path, bare_tokenizer)
    here = {"LONGALIGN_STORE": str(tmp_path / "store"), "LONGALIGN_SCRATCH": str(tmp_path / "scratch")}
    done = longalign("run", str(recipe), **here)
    refused(done, 2, str(bare_tokenizer), "no chat template", "set encoding.template", "longalign keys encoding")
    assert not list((tmp_path / "store").glob("*/*"))


def test_tokenizer_without_template_is_in_order_where_one_is_named_or_not_yet_needed(
    bare_tokenizer, tokenizer, tmp_path
):
    recipe = recipe_with(tmp_path, bare_tokenizer)
    check_inputs(load_recipe(recipe, ["encoding.template=plain"]), "batches")
    check_inputs(load_recipe(recipe), "mixture")
    check_inputs(load_recipe(recipe, [f"encoding.tokenizer={tokenizer}"]), "batches")
    with pytest.raises(InputError, match="no chat template"):
        check_inputs(load_recipe(recipe), "encode")


@pytest.mark.parametrize("settings", ["tokenizer_config.json", "additional_chat_templates"])
def test_tokenizer_with_a_template_elsewhere_is_in_order(bare_tokenizer, tokenizer, tmp_path, settings):
    folder = tmp_path / "other"
    folder.mkdir()
    for file in bare_tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    template = (tokenizer / "chat_template.jinja").read_text()
    if settings == "tokenizer_config.json":
        values = yaml.safe_load((folder / settings).read_text()) | {"chat_template": template}
        (folder / settings).write_text(yaml.safe_dump(values, default_flow_style=True, width=10**9))
    else:
        (folder / settings).mkdir()
        (folder / settings / "default.jinja").write_text(template)
    check_inputs(load_recipe(recipe_with(tmp_path, folder)), "encode")


@pytest.mark.parametrize("damaged", ["[]", "{"])
def test_tokenizer_with_damaged_settings_is_left_to_the_stage_to_refuse(bare_tokenizer, tmp_path, damaged):
    folder = tmp_path / "other"
    folder.mkdir()
    for file in bare_tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "tokenizer_config.json").write_text(damaged)
    check_inputs(load_recipe(recipe_with(tmp_path, folder)), "encode")
    config = EncodingConfig(tokenizer=str(folder))
    write_records(tmp_path / "in" / "conversations.parquet", [conversation("c1", "user", "assistant")], Conversation)
    with pytest.raises(InputError, match="no tokenizer that transformers can load"):
        encode.function(config, {"conversations": (tmp_path / "in",)}, tmp_path / "out", RUNTIME)


# The stages.


def test_encode_stage_bad_conversations_become_rejects_and_stop_nothing(tokenizer, tmp_path):
    write_records(
        tmp_path / "in" / "conversations.parquet",
        [
            conversation("good-1", "user", "assistant"),
            conversation("two-users", "user", "user", "assistant"),
            conversation("no-assistant", "user"),
            conversation("only-system", "system"),
            conversation("two-assistants", "user", "assistant", "assistant"),
            conversation("assistant-first", "assistant", "user"),
            conversation("good-2", "system", "user", "assistant"),
        ],
        Conversation,
    )
    config = EncodingConfig(tokenizer=str(tokenizer), max_tokens=128)
    counts = encode.function(config, {"conversations": (tmp_path / "in",)}, tmp_path / "out", RUNTIME)
    assert (counts["sequences"], counts["rejects"]) == (2, 5)
    rejects = list(read_records(tmp_path / "out" / "rejects.parquet", Reject))
    expected = {
        "two-users": "its turns are user, user, assistant; user and assistant must alternate",
        "no-assistant": "no assistant turn",
        "only-system": "no assistant turn",
        "two-assistants": "its turns are user, assistant, assistant; user and assistant must alternate",
        "assistant-first": "its turns are assistant, user; user and assistant must alternate",
    }
    assert [reject.id for reject in rejects] == list(expected)
    for reject in rejects:
        assert (reject.stage, reject.source, reject.reason) == ("encode", "books", "turns")
        assert reject.detail.startswith(f"conversation {reject.id}: ")
        assert expected[reject.id] in reject.detail


def test_encode_stage_tokenizer_without_template_reads_no_conversation(bare_tokenizer, tmp_path):
    config = EncodingConfig(tokenizer=str(bare_tokenizer), max_tokens=128)
    with pytest.raises(InputError, match=r"no chat template; set encoding\.template to one of ours: .*llama-2"):
        # What it would read is not even there.
        encode.function(config, {"conversations": (tmp_path / "none",)}, tmp_path / "out", RUNTIME)
    assert not (tmp_path / "out").exists()


def test_batches_stage_capacity_below_the_longest_sequence_writes_no_plan(tmp_path):
    with TokenStoreWriter(tmp_path / "tokens") as writer:
        for length in (3, 9, 40, 5):
            writer.append(np.arange(length), np.arange(length) > 1)
    assert TokenStore.open(tmp_path / "tokens").num_sequences == 4
    config = BatchingConfig(capacity=39, packs_per_step=2)
    with pytest.raises(InputError, match=r"sequence 2 has 40 tokens but a pack holds 39; lower .* or raise"):
        batches.function(config, {"tokens": (tmp_path / "tokens",)}, tmp_path / "plan", RUNTIME)
    assert not (tmp_path / "plan" / "plan.parquet").exists()
    assert not (tmp_path / "plan" / "plan.json").exists()


@pytest.mark.parametrize(
    ("override", "kind"),
    [({"packs_per_step": 0}, ValueError), ({"alike": 3}, ValueError), ({"capacity": 2**24 + 1}, ValueError)],
)
def test_batching_section_impossible_settings_never_reach_a_stage(override, kind):
    with pytest.raises(kind, match=next(iter(override))):
        BatchingConfig(**override)


# `longalign batches` on anyone's lengths.


@pytest.mark.parametrize(
    ("lengths", "options", "expected"),
    [
        ([5, 0, 7], {}, ["sequence 1", "0 tokens", "leave out"]),
        ([5, 7, 33], {}, ["sequence 2", "33 tokens", "32", "raise"]),
        ([1.5, 2.0], {}, ["lengths.npy", "whole numbers", "save"]),
        ([[1, 2], [3, 4]], {}, ["lengths.npy", "one-dimensional", "save"]),
        ([True, False], {}, ["lengths.npy", "whole numbers", "save"]),
        (["5", "7"], {}, ["lengths.npy", "whole numbers", "save"]),
        ([5, 7], {"packs_per_step": 0}, ["--packs-per-step is 0", "from 1 up"]),
        ([5, 7], {"capacity": 0}, ["--capacity is 0", "from 1 up"]),
        ([5, 7], {"ranks": 3}, ["--ranks 3", "does not divide", "divisor"]),
        ([5, 7], {"alike": 3}, ["--alike 3", "does not divide", "divisor"]),
    ],
    ids=str,
)
def test_simulate_wrong_lengths_and_options_are_one_sentence(tmp_path, lengths, options, expected):
    file = tmp_path / "lengths.npy"
    np.save(file, np.array(lengths))
    with pytest.raises((InputError, DataError)) as caught:
        simulate_batches(file, **({"capacity": 32, "packs_per_step": 4, "ranks": 2} | options))
    said = str(caught.value)
    assert "\n" not in said
    for part in expected:
        assert part in said


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01", b"\x00" * 300])
def test_simulate_file_that_is_no_array_says_how_to_make_one(tmp_path, content):
    (tmp_path / "lengths.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"lengths\.npy .*; save the lengths"):
        simulate_batches(tmp_path / "lengths.npy", capacity=32, packs_per_step=4, ranks=2)


@pytest.mark.parametrize(
    ("lengths", "options", "expected"),
    [
        # Wrong data of the user's own is wrong input here, not failed work.
        ([5, 0, 7], [], ["sequence 1", "0 tokens"]),
        ([5, 33], [], ["sequence 1", "33 tokens"]),
        ([1.5], [], ["lengths.npy", "whole numbers"]),
        ([5, 7], ["--alike", "3"], ["--alike 3", "does not divide"]),
    ],
    ids=str,
)
def test_batches_command_wrong_input_exits_with_two(tmp_path, lengths, options, expected):
    np.save(tmp_path / "lengths.npy", np.array(lengths))
    base = ["--capacity", "32", "--packs-per-step", "4", "--ranks", "2"]
    refused(longalign("batches", str(tmp_path / "lengths.npy"), *base, *options), 2, *expected)


def test_batches_command_step_without_packs_is_refused(tmp_path):
    np.save(tmp_path / "lengths.npy", np.array([5, 7]))
    options = ["--capacity", "32", "--packs-per-step", "0", "--ranks", "2"]
    done = longalign("batches", str(tmp_path / "lengths.npy"), *options)
    assert done.returncode == 2
    assert "--packs-per-step" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("option", "name"), [("out", "plan.parquet"), ("picture", "plan.svg")])
def test_simulate_file_that_cannot_be_written_is_one_sentence(tmp_path, option, name):
    np.save(tmp_path / "lengths.npy", np.array([5, 7]))
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf"^--{option} .*{name} cannot be written \(.*\); give another place$"):
        simulate_batches(
            tmp_path / "lengths.npy", capacity=32, packs_per_step=4, ranks=2, strategy="bfd",
            **{option: tmp_path / name},
        )  # fmt: skip
