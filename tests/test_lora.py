"""LoRA: adapters trained with the packed loss, merged into what is published."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from longalign_core.batch_plan import BatchPlan
from longalign_core.config.runtime import Runtime
from longalign_core.config.training import Lora, Optimizer, TrainingConfig
from longalign_core.errors import InputError
from longalign_core.supervise import supervised
from longalign_core.token_store import TokenStore
from longalign_core.training.chatglm3_weights import convert
from longalign_core.training.deepspeed_config import deepspeed_config
from longalign_core.training.isolation import check_isolation
from longalign_core.training.job import EVENTS_FILE, EventReader, TrainingJob
from longalign_core.training.launch import launch_command, worker_environment
from longalign_core.training.lora import add_adapters
from longalign_core.training.model import load_model
from longalign_core.training.model_folder import save_model
from longalign_core.training.packs import make_pack
from longalign_core.training.schedule import learning_rate
from tests.chatglm3_oracle import write_chatglm3
from tests.test_model_families import FAMILIES, write_family
from tests.tiny_training import VOCABULARY, training_config, write_model, write_plan, write_tokens

LENGTHS = (7, 1, 12, 5)


def adapted(folder, lora, seed=0, random_b=True):
    """A model with adapters; a new one's B is zero, which would hide half of them."""
    torch.manual_seed(seed)
    model = load_model(folder, precision="fp32", trust_remote_code=False, gradient_checkpointing=False)
    add_adapters(model, lora)
    if random_b:
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def random_pack():
    ids = torch.randint(VOCABULARY, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    weights = torch.rand(len(ids), generator=torch.Generator().manual_seed(2))
    weights[torch.tensor(LENGTHS).cumsum(0) - 1] = 0
    return ids, positions, ids.roll(-1), weights


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", [(), ("q_proj", "down_proj")])
def test_adapter_gradients_follow_from_those_of_the_merged_weights(tmp_path, targets, tied):
    lora = Lora(rank=3, alpha=7, target_modules=targets)
    model = adapted(write_model(tmp_path, tied=tied), lora)
    check_isolation(model, torch.device("cpu"))
    ids, positions, labels, weights = random_pack()
    loss, _ = model(ids, positions, labels, weights)
    loss.backward()
    parameters = dict(model.model.named_parameters())
    trained = {name for name, one in parameters.items() if one.requires_grad}
    assert trained == {name for name, one in parameters.items() if one.grad is not None}

    # Each sequence alone, in plain transformers in float64, on the weights W + alpha / rank * B A.
    alone = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64, attn_implementation="eager")
    layers = {name.removesuffix(".lora_A.default.weight") for name in trained if ".lora_A." in name}
    ends = targets or ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert {name.split(".")[-1] for name in layers} == set(ends) and len(layers) == 2 * len(ends)
    factors = {
        layer: [parameters[f"{layer}.lora_{letter}.default.weight"].detach().double() for letter in "AB"]
        for layer in layers
    }
    for layer, (a, b) in factors.items():
        alone.get_submodule(layer).weight.data += 7 / 3 * b @ a
    expected = 0.0
    for own, own_labels, own_weights in zip(*(x.split(LENGTHS) for x in (ids, labels, weights)), strict=True):
        logits = alone(own[None], use_cache=False).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, own_labels, reduction="none")
        (losses * own_weights).sum().backward()
        expected += float((losses * own_weights).sum().detach())
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    for layer, (a, b) in factors.items():
        change = alone.get_submodule(layer).weight.grad
        for letter, wanted in (("A", 7 / 3 * b.T @ change), ("B", 7 / 3 * change @ a.T)):
            found = parameters[f"{layer}.lora_{letter}.default.weight"].grad.double()
            assert (found - wanted).norm() / wanted.norm() < 1e-5, (layer, letter)


@pytest.mark.parametrize("tied", [False, True])
def test_save_model_merges_adapters_and_keeps_them_beside_where_asked_for(tmp_path, tied):
    from peft import PeftModel

    lora = Lora(rank=3, alpha=7, target_modules=("q_proj", "up_proj"), keep_adapter=True)
    base = write_model(tmp_path / "base", tied=tied)
    model = adapted(base, lora)
    save_model(model, None, training_config(base, lora=lora), base, tmp_path / "out")

    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert set(before) == set(after)
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved == {
        f"model.layers.{layer}.{name}.weight" for layer in (0, 1) for name in ("self_attn.q_proj", "mlp.up_proj")
    }
    ids, positions, *_ = random_pack()
    model.eval()
    expected = model.model(ids[None], position_ids=positions[None], use_cache=False).logits
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    plain.set_attn_implementation("longalign_packed")
    found = plain(ids[None], position_ids=positions[None], use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    with_adapter = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out" / "adapter")
    alone = ids[:7][None]
    torch.testing.assert_close(with_adapter(alone).logits, found[:, :7], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("query",), "target_modules query"),
        (("q_proj", "lm_head"), "an adapter on lm_head"),
        (("q_proj", "embed_tokens"), "an adapter on model.embed_tokens"),
    ],
)
def test_add_adapters_to_what_cannot_have_one_is_refused(tmp_path, targets, message):
    with pytest.raises(InputError, match=message):
        adapted(write_model(tmp_path), Lora(target_modules=targets))


def test_add_adapters_to_layers_kept_turned_is_refused(tmp_path):
    folder = write_family(tmp_path, "gpt2", FAMILIES["gpt2"])
    with pytest.raises(InputError, match=r"an adapter on transformer\.h\.0\.attn\.c_attn"):
        adapted(folder, Lora())


def test_adapters_with_dropout_pass_the_isolation_check_in_training(tmp_path):
    model = adapted(write_model(tmp_path), Lora(rank=2, dropout=0.3))
    model.train()
    check_isolation(model, torch.device("cpu"))
    assert model.training


def test_lora_left_out_moves_no_address_and_bad_numbers_are_refused():
    assert TrainingConfig(base_model="x", lora=None) == TrainingConfig(base_model="x")
    with pytest.raises(ValidationError):
        Lora(rank=0)


STORE_LENGTHS = (7, 12, 30, 5, 9, 3, 21, 16)
PACKS = ((0, 1), (2,), (3, 4, 5), (6,), (7,), ())
NUM_STEPS = 3
LORA = Lora(rank=4, alpha=8)
OPTIMIZER = Optimizer(learning_rate=1e-2, clip_norm=0.5)
JOBS = {"zero-0": 0, "zero-1": 1, "zero-2": 2, "zero-3": 3, "chatglm3": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The world's folder after training to the end and once more from the last resume point, for each of JOBS."""
    root = tmp_path_factory.mktemp("lora")
    store = write_tokens(root / "tokens", STORE_LENGTHS)
    write_plan(root / "plan", store, PACKS, packs_per_step=2)
    write_model(root / "base")
    write_chatglm3(root / "chatglm3-source")
    convert(root / "chatglm3-source", root / "chatglm3-base")
    files = []
    for name, stage in JOBS.items():
        base = root / ("chatglm3-base" if name == "chatglm3" else "base")
        config = training_config(base, lora=LORA, optimizer=OPTIMIZER)
        rendered = deepspeed_config(config, Runtime(ranks=2, gpus=0, zero_stage=stage), 2, 2)
        if stage == 3:
            rendered["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        (root / name).mkdir()
        job = TrainingJob(
            plan=root / "plan",
            tokens=root / "tokens",
            base_model=base,
            out_dir=root / name,
            config=config,
            keep_steps=(NUM_STEPS,),
            checkpoint_interval=1,
            gradient_checkpointing=stage == 2,
            deepspeed=rendered,
        )
        files.append(root / name / "job.json")
        files[-1].write_text(job.model_dump_json())
    command = launch_command(files[0], 2)
    command = [*command[: command.index("--module") + 1], "tests.lora_rank", *map(str, files)]
    environment = worker_environment(os.environ, ranks=2, on_gpu=False, extensions=root / "extensions")
    repository = Path(__file__).resolve().parent.parent
    with supervised(command, env=environment, log=root / "log", cwd=repository) as process:
        try:
            code = process.wait(240)
        except subprocess.TimeoutExpired:
            code = None
    assert code == 0, (root / "log").read_text()[-4000:]
    return root


def plain_loop(root):
    """The same run in one process without DeepSpeed: losses, and the model with its adapters."""
    plan, store = BatchPlan.open(root / "plan"), TokenStore.open(root / "tokens")
    model = adapted(root / "base", LORA, random_b=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    losses = []
    for step in range(NUM_STEPS):
        total = 0.0
        for slot, scales in zip(plan.slots(step), plan.loss_scales(step), strict=True):
            if slot:
                pack = make_pack(slot, scales, store, VOCABULARY)
                arrays = (pack.token_ids, pack.positions, pack.labels, pack.weights)
                loss, _ = model(*(torch.from_numpy(array) for array in arrays))
                loss.backward()
                total += float(loss.detach())
        losses.append(total)
        torch.nn.utils.clip_grad_norm_(trained, OPTIMIZER.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(OPTIMIZER, step, NUM_STEPS)
        optimizer.step()
        optimizer.zero_grad()
    return losses, model.eval()


def events(out_dir):
    return [event for event in EventReader(out_dir / EVENTS_FILE).new() if event["event"] == "step"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_lora_under_each_zero_stage_equals_a_plain_loop_and_publishes_the_merged_model(runs, stage):
    losses, reference = plain_loop(runs)
    assert math.isfinite(losses[-1])
    steps = events(runs / f"zero-{stage}")
    assert [event["loss"] for event in steps[:NUM_STEPS]] == pytest.approx(losses, rel=1e-5)
    folder = runs / f"zero-{stage}" / ".models" / f"step-{NUM_STEPS:06d}"
    before, after = load_file(runs / "base" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert set(before) == set(after)
    frozen = {name for name in before if before[name].equal(after[name])}
    assert frozen == {name for name in before if "proj" not in name}
    ids, *_ = random_pack()
    found = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")(ids[None], use_cache=False).logits
    reference.model.set_attn_implementation("eager")
    expected = reference.model(ids[None], use_cache=False).logits
    assert (found - expected).norm() / expected.norm() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_lora_resumed_before_its_last_step_does_it_again_bit_for_bit(runs, name):
    *first, again = events(runs / name)
    assert [event["step"] for event in first] == [1, 2, 3] and again["step"] == 3
    assert (again["loss"], again["grad_norm"]) == (first[-1]["loss"], first[-1]["grad_norm"])


@pytest.mark.slow
def test_chatglm3_trains_and_its_checkpoint_is_a_plain_glm(runs):
    folder = runs / "chatglm3" / ".models" / f"step-{NUM_STEPS:06d}"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "GlmForCausalLM"
    base = load_file(next((runs / "chatglm3-base").glob("model-00001*.safetensors")))
    name = next(name for name in base if name.endswith("o_proj.weight"))
    assert not model.state_dict()[name].equal(base[name])
