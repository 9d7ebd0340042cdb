"""`longalign publish`: checkpoints from elsewhere come in whole, once, or not at all, and are evaluated like ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from longalign_core.config.loading import load_recipe
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError, MissingArtifactError, StoreError
from longalign_core.execution import Context, open_context
from longalign_core.pipeline import evaluate_checkpoint
from longalign_core.publishing import find_checkpoint, publish_checkpoint
from longalign_core.recipe_checks import check_inputs
from longalign_core.runner import LocalRunner
from tests.fake_chat_server import FakeChatServer
from tests.small_recipe import small_recipe
from tests.tiny_model import tiny_model, tiny_tokenizer
from tests.tiny_training import write_model

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as somebody else's training leaves it, in shards, with what is no part of a model."""
    from transformers import AutoModelForCausalLM

    folder = tiny_model(tmp_path_factory.mktemp("elsewhere") / "their-model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    (folder / "optimizer.pt").write_bytes(b"much")
    (folder / "trainer_state.json").write_text("{}")
    (folder / ".env").write_text("SECRET=1")
    return folder


@pytest.fixture
def theirs(one: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(one, tmp_path / "their-model"))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_of(str(tmp_path / "store"), tmp_path)


def context_of(store: str, folder: Path) -> Context:
    return open_context(Runtime(store=store, scratch=folder / "scratch"))


def test_publish_twice_and_from_elsewhere_is_one_artifact_that_loads(store_url, theirs, tmp_path):
    context = context_of(store_url, tmp_path)
    first = publish_checkpoint(context, str(theirs))
    (theirs / "trainer_state.json").write_text("{1}")  # no part of the model
    moved = theirs.rename(tmp_path / "moved")
    again = publish_checkpoint(context_of(store_url, tmp_path / "other machine"), str(moved))
    assert (first.found, again.found) == (False, True)
    assert first.manifest == again.manifest and list(context.store.addresses()) == [first.manifest.address]
    names = [entry.path for entry in first.manifest.files]
    assert "model.safetensors.index.json" in names and "chat_template.jinja" in names
    assert not {"optimizer.pt", "trainer_state.json", ".env"} & set(names)
    assert (first.manifest.stage, first.manifest.inputs, first.manifest.label) == ("checkpoint", {}, "their-model")

    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = context.store.fetch(first.manifest)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert not any(file.is_symlink() for file in folder.rglob("*"))


def test_publish_changes_no_file_of_the_user_and_other_weights_are_another_artifact(context, theirs):
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    first = publish_checkpoint(context, str(theirs), template="qwen2.5")
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == before
    assert publish_checkpoint(context, str(theirs)).manifest.address != first.manifest.address
    shard = sorted(theirs.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    other = publish_checkpoint(context, str(theirs), template="qwen2.5")
    assert not other.found and other.manifest.address != first.manifest.address
    stored = context.store.fetch(first.manifest) / shard.name
    assert stored.read_bytes() == before[shard.name], "what is in the store does not change with the user's file"


def remove(*patterns):
    def damage(folder):
        for pattern in patterns:
            for file in folder.glob(pattern):
                file.unlink()

    return damage


def cut(folder):
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])


def pickled(folder):
    remove("*.safetensors*")(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def encoder(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))


def nameless(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))


def adapter(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")


def foreign_tokenizer(folder):
    tiny_tokenizer(folder, vocabulary=350)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove("config.json"), "holds no model: it has no config.json"),
        (adapter, "holds an adapter, no model; merge it"),
        (encoder, "BertModel, which is no causal language model"),
        (nameless, "names no model_type and architectures"),
        (pickled, "are pickled, which can run code .* save them again as safetensors"),
        (remove("*.safetensors*"), "lacks weights"),
        (remove("model-00002*"), r"lacks model-00002-of-\d+\.safetensors \(1 in all\), which .*index\.json names"),
        (remove("*.index.json"), "but no model.safetensors.index.json"),
        (cut, r"has [\d,]+ bytes but its header says [\d,]+; copy it again"),
        (remove("tokenizer*"), "lacks a tokenizer"),
        (remove("chat_template.jinja"), "has no chat template; give the one it was trained with by --template"),
        (foreign_tokenizer, r"ids up to 3\d\d but the model knows 300"),
    ],
)
def test_publish_of_what_does_not_load_is_refused_and_leaves_nothing(context, theirs, damage, said):
    damage(theirs)
    with pytest.raises(InputError, match=said):
        publish_checkpoint(context, str(theirs))
    assert list(context.store.addresses()) == []
    assert context.store.files.sizes("checkpoint") == {}


def test_publish_takes_a_template_by_name_or_file_where_there_is_none(context, tmp_path):
    theirs = write_model(tmp_path / "base")
    template = theirs / "chat_template.jinja"
    own = tmp_path / "own.jinja"
    template.rename(own)
    published = publish_checkpoint(context, str(theirs), template=str(own))
    assert (context.store.fetch(published.manifest) / "chat_template.jinja").read_text() == own.read_text()
    named = publish_checkpoint(context, str(theirs), template="plain")
    assert named.manifest.address != published.manifest.address
    for wrong, said in (("chatml", "neither a file nor one of ours: plain, "), ("llama-3", "lacks as control tokens")):
        with pytest.raises(InputError, match=said):
            publish_checkpoint(context, str(theirs), template=wrong)


def test_publish_gives_a_name_that_moves_and_finds_the_checkpoint(store_url, theirs, tmp_path):
    context = context_of(store_url, tmp_path)
    first = publish_checkpoint(context, str(theirs), name="candidate").manifest
    assert find_checkpoint(context.store, "candidate").address == first.address
    second = publish_checkpoint(context, str(theirs), name="candidate", template="qwen2.5").manifest
    assert second.address != first.address
    found = find_checkpoint(context.store, "candidate")
    assert (found.address, found.done) == (second.address, True)
    assert find_checkpoint(context.store, first.address).address == first.address
    with pytest.raises(MissingArtifactError):
        find_checkpoint(context.store, "checkpoint/0000000000000000")
    for wrong in ("nobody", "train/0000000000000000", "../x"):
        with pytest.raises(InputError, match="is no checkpoint"):
            find_checkpoint(context.store, wrong)
    with pytest.raises(InputError, match="--name"):
        publish_checkpoint(context, str(theirs), name="a/b")


def test_publish_into_a_store_that_refuses_leaves_nothing_and_works_afterwards(context, theirs):
    place = Path(context.runtime.store)
    place.mkdir(exist_ok=True)
    (place / "checkpoint").write_text("a file where a folder should be")
    with pytest.raises(StoreError):
        publish_checkpoint(context, str(theirs))
    (place / "checkpoint").unlink()
    assert not publish_checkpoint(context, str(theirs)).found


def test_published_checkpoint_is_evaluated_by_a_recipe_without_its_training(context, theirs, tmp_path, test_data):
    recipe = load_recipe(small_recipe(tmp_path, test_data, theirs))
    published = publish_checkpoint(context, str(theirs), name="candidate").manifest
    with FakeChatServer(lambda body: "[[7]]") as server:
        endpoints = {"candidate": server.url, "judge": server.url}
        runtime = context.runtime.model_copy(update={"endpoints": endpoints})
        for _ in range(2):  # a second one is free
            runner = LocalRunner(open_context(runtime))
            evaluate_checkpoint(runner, recipe, find_checkpoint(context.store, "candidate"))
            num_calls = len(server.requests)
    assert len(server.requests) == num_calls
    assert [one.stage for one in runner.artifacts] == ["evaluate", "evaluate", "scorecard"]
    manifest = context.store.require(runner.artifacts[0].address)
    assert manifest.inputs == {"checkpoint": [published.address]}
    card = json.loads(
        (context.store.fetch(context.store.require(runner.artifacts[-1].address)) / "scorecard.json").read_bytes()
    )
    assert len(card["suites"]) == 2


def test_run_of_a_checkpoint_needs_the_files_of_its_evaluation_alone(tmp_path, test_data, theirs):
    recipe = load_recipe(small_recipe(tmp_path, test_data, theirs), ["training.base_model=nowhere"])
    check_inputs(recipe, None, "checkpoint/0123456789abcdef")
    with pytest.raises(InputError, match="--until evaluate or scorecard alone"):
        check_inputs(recipe, "train", "checkpoint/0123456789abcdef")
    (tmp_path / "cases.json").unlink()
    with pytest.raises(InputError, match=r"cases\.json, which does not exist"):
        check_inputs(recipe, None, "checkpoint/0123456789abcdef")


def test_publish_on_the_command_line_prints_the_address(theirs, tmp_path):
    places = {"LONGALIGN_STORE": str(tmp_path / "store"), "LONGALIGN_SCRATCH": str(tmp_path / "scratch")}

    def longalign(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "longalign_core.cli", "publish", *arguments],
            cwd=REPOSITORY, env=os.environ | places, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    done = longalign(str(theirs), "--name", "candidate", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == {"address": said["address"], "found": False, "name": "candidate"}
    assert longalign(str(theirs)).stdout.strip() == said["address"]
    refused = longalign("team/model")
    assert refused.returncode == 2 and "write hub:team/model" in refused.stderr
