"""A trained model's folder as others meet it: loaded in a fresh process, talked to, and stopping where it should."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from longalign_core.chat_format import ChatFormat
from longalign_core.config.training import ExtensionConfig
from longalign_core.records import Conversation, Message
from longalign_core.stages.exported_model import end_of_turn, set_chat_format
from longalign_core.training.extended_base import write_extended_base
from longalign_core.training.model import load_model
from longalign_core.training.model_folder import save_model
from tests.tiny_model import tiny_model
from tests.tiny_training import training_config, write_model

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As a person would, in a process that knows nothing of us and reaches no network.
SPEAK = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
messages = [{"role": "user", "content": "Where is the cat?"}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
reply = model.generate(**prompt, max_new_tokens=20)[0, prompt["input_ids"].shape[1]:].tolist()
text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
print(json.dumps({"reply": reply, "prompt": text, "dtype": str(model.dtype),
                  "attention": model.config._attn_implementation}))
"""


def exported(base, folder, *, precision="bf16", **options):
    """The base model as training exports it, by way of training's own model."""
    model = load_model(base, precision=precision, trust_remote_code=False, gradient_checkpointing=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    save_model(model, None, training_config(base, precision=precision), base, folder, **options)
    return model


def speak(folder, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", SPEAK, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def make_it_say(folder, token):
    """Have a model answer with one token whatever it is asked."""
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = torch.ones_like(weights["model.embed_tokens.weight"])
    for name in weights:
        if "layernorm" not in name and "model.layers" in name:
            weights[name] = torch.zeros_like(weights[name])
    weights["lm_head.weight"] = torch.zeros_like(weights["lm_head.weight"])
    weights["lm_head.weight"][token] = 1.0
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_exported_model_speaks_in_a_fresh_process_and_stops_at_the_end_of_its_turn(tmp_path):
    base = tiny_model(tmp_path / "base")
    (base / "generation_config.json").write_text(
        json.dumps({"temperature": 0.7, "top_p": 0.8, "do_sample": False, "eos_token_id": 0, "max_length": 4096})
    )
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"use_cache": False, "_name_or_path": "/home/somebody/x"}))
    (base / "LICENSE.txt").write_text("terms")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    # As base models have it: the tokenizer's end token is not the one that ends a turn.
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|endoftext|>"}))
    folder = tmp_path / "out"
    exported(base, folder)
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    set_chat_format(folder, tmp_path / "template.jinja")

    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    generation = json.loads((folder / "generation_config.json").read_text())
    assert (generation["temperature"], generation["top_p"], generation["max_length"]) == (0.7, 0.8, 4096)
    assert generation["eos_token_id"] == [end, tokenizer.eos_token_id] and end != tokenizer.eos_token_id
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        ids = generation[name] if isinstance(generation[name], list) else [generation[name]]
        assert all(0 <= one < len(tokenizer) for one in ids)
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE == tokenizer.chat_template
    assert (folder / "LICENSE.txt").read_text() == "terms"

    make_it_say(folder, end)
    said = speak(folder, tmp_path)
    assert said["reply"] == [end], "it ends its turn, and generation with it"
    assert said["prompt"] == "<|im_start|>user\nWhere is the cat?<|im_end|>\n<|im_start|>assistant\n"
    assert (said["dtype"], said["attention"]) == ("torch.bfloat16", "sdpa")


def test_exported_config_is_what_servers_look_for_and_holds_nothing_of_training(tmp_path):
    base = write_model(tmp_path / "base")
    exported(base, tmp_path / "out")
    text = (tmp_path / "out/config.json").read_text()
    config = json.loads(text)
    # vLLM finds the model's class by `architectures`, its numbers by `dtype`.
    assert config["architectures"] == ["LlamaForCausalLM"] and config["model_type"] == "llama"
    assert config["dtype"] == "bfloat16" and config["use_cache"] is True
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000
    for hidden in ("longalign", "attn_implementation", str(tmp_path), "_name_or_path"):
        assert hidden not in text
    assert {weight.dtype for weight in load_file(tmp_path / "out/model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("method", ["rope_base", "yarn"])
def test_exported_config_of_an_extended_base_says_its_positions_in_both_forms(tmp_path, method):
    base = write_model(tmp_path / "base")
    extension = ExtensionConfig(enabled=True, method=method, rope_factor=4, context_tokens=512)
    write_extended_base(base, tmp_path / "extended", extension, trust_remote_code=False)
    exported(tmp_path / "extended", tmp_path / "out")
    values = json.loads((tmp_path / "out/config.json").read_text())
    meant = AutoConfig.from_pretrained(tmp_path / "extended")
    again = AutoConfig.from_pretrained(tmp_path / "out")
    assert again.rope_parameters == meant.rope_parameters
    assert again.max_position_embeddings == meant.max_position_embeddings == 512
    assert values["rope_theta"] == meant.rope_parameters["rope_theta"]
    assert ("rope_scaling" in values) == (method == "yarn")
    if method == "yarn":
        assert (values["rope_scaling"]["rope_type"], values["rope_scaling"]["factor"]) == ("yarn", 4)


@pytest.mark.parametrize("tied", [False, True])
def test_sharded_export_has_an_index_of_its_files_and_computes_the_same(tmp_path, tied):
    base = write_model(tmp_path / "base", tied=tied)
    trained = exported(base, tmp_path / "out", precision="fp32", max_shard_size="20KB")
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 1 and sorted(set(index["weight_map"].values())) == shards
    assert ("lm_head.weight" in index["weight_map"]) is not tied
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.tie_word_embeddings is tied
    token_ids = torch.tensor([[5, 9, 30, 7]])
    states = trained.eval().hidden(token_ids[0], torch.arange(4))
    expected = states @ trained.model.get_output_embeddings().weight.T
    assert torch.allclose(model(token_ids).logits[0], expected, atol=1e-5)


def test_export_keeps_the_tokenizer_and_names_its_class_as_older_readers_do(tmp_path):
    base = write_model(tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(
        json.dumps(settings | {"chat_template": "another", "name_or_path": "/home/somebody/x"})
    )
    exported(base, tmp_path / "out")
    (tmp_path / "t.jinja").write_text("{% for m in messages %}w5 {{ m.content }} w1 {% endfor %}")
    set_chat_format(tmp_path / "out", tmp_path / "t.jinja")
    text = (tmp_path / "out/tokenizer_config.json").read_text()
    assert "somebody" not in text and "another" not in text
    assert json.loads(text)["tokenizer_class"] == "PreTrainedTokenizerFast"
    before, after = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("base", "out"))
    assert before("w7 w9 what").input_ids == after("w7 w9 what").input_ids
    chat = [{"role": "user", "content": "w7"}]
    assert after.apply_chat_template(chat, tokenize=False) == "w5 w7 w1 "


def test_end_of_turn_is_the_last_token_trained_on(smol_folder):
    chat_format = ChatFormat.load(smol_folder)
    messages = (Message(role="user", content="a"), Message(role="assistant", content="b"))
    (encoded,) = chat_format.encode(
        [Conversation(id="1", messages=messages, source="s", task_type="chat", language="en")], 1000
    )
    last = int(encoded.token_ids[encoded.is_target][-1])
    assert end_of_turn(chat_format) == last == chat_format.tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_export_of_gathered_weights_keeps_tied_ones_once_and_their_precision(tmp_path, precision):
    base = write_model(tmp_path / "base", tied=True)
    model = load_model(base, precision=precision, trust_remote_code=False, gradient_checkpointing=False)
    # As ZeRO-3 gathers them: by the wrapper's names, a shared tensor under each of its names.
    state = {f"model.{name}": tensor.detach() + 1 for name, tensor in model.model.state_dict().items()}
    state["model.lm_head.weight"] = state["model.model.embed_tokens.weight"]
    save_model(model, state, training_config(base, precision=precision), base, tmp_path / "out")
    saved = load_file(tmp_path / "out/model.safetensors")
    assert "lm_head.weight" not in saved
    assert {weight.dtype for weight in saved.values()} == {state["model.lm_head.weight"].dtype}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    assert loaded.lm_head.weight.equal(state["model.lm_head.weight"])


REMOTE = """from transformers import LlamaConfig, LlamaForCausalLM
from .parts import ANSWER
class MineConfig(LlamaConfig):
    model_type = "mine"
class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
    answer = ANSWER
"""


def test_export_of_a_model_with_code_of_its_own_brings_the_code_along(tmp_path):
    base = write_model(tmp_path / "base")
    (base / "modeling_mine.py").write_text(REMOTE)
    (base / "parts.py").write_text("ANSWER = 42\n")
    config = json.loads((base / "config.json").read_text())
    names = {"AutoConfig": "modeling_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    config |= {"model_type": "mine", "architectures": ["MineForCausalLM"], "auto_map": names}
    (base / "config.json").write_text(json.dumps(config))
    model = load_model(base, precision="fp32", trust_remote_code=True, gradient_checkpointing=False)
    save_model(model, None, training_config(base, trust_remote_code=True), base, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["auto_map"] == names
    shutil.rmtree(base)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert loaded.answer == 42
