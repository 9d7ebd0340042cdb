"""The start-up check that sequences of a pack do not see each other."""

from __future__ import annotations

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from longalign_core.errors import InputError, TrainingError
from longalign_core.training.isolation import check_isolation
from longalign_core.training.model import PackedLossModel, load_model
from tests.tiny_training import write_model

CPU = torch.device("cpu")


def load(folder, gradient_checkpointing=False):
    return load_model(folder, precision="fp32", trust_remote_code=False, gradient_checkpointing=gradient_checkpointing)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_check_isolation_packed_attention_passes_in_either_mode(tmp_path, dropout, gradient_checkpointing):
    model = load(write_model(tmp_path, dropout=dropout), gradient_checkpointing)
    model.train()
    check_isolation(model, CPU)
    assert model.training


def test_check_isolation_attention_over_the_whole_pack_is_refused(tmp_path):
    # What happens when an attention function ignores the restarts: a plain causal one does.
    model = load(write_model(tmp_path))

    class WholePack(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, position_ids=None, **kwargs):
            whole = torch.arange(position_ids.shape[1])[None]
            return self.inner(*args, position_ids=whole, **kwargs)

    for layer in model.model.model.layers:
        layer.self_attn = WholePack(layer.self_attn)
    with pytest.raises(TrainingError, match="sequences see each other"):
        check_isolation(model, CPU)


def test_check_isolation_model_deaf_to_its_input_is_refused(tmp_path):
    model = load(write_model(tmp_path))
    with torch.no_grad():
        model.model.get_input_embeddings().weight.zero_()
    with pytest.raises(TrainingError, match="does not move its own logits"):
        check_isolation(model, CPU)


def test_check_isolation_logits_changed_after_the_head_is_refused(tmp_path):
    # Some models scale or cap logits in their own forward, which the loss head would miss.
    model = load(write_model(tmp_path))
    plain = type(model.model)

    class Scaled(plain):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 0.5
            return output

    model.model.__class__ = Scaled
    with pytest.raises(InputError, match="changes its logits after its output layer"):
        check_isolation(model, CPU)


class Leaking(PackedLossModel):
    """Runs the model as plain transformers would: packs are only told apart where no cache and no mask exists."""

    def __init__(self, model, **arguments):
        super().__init__(model)
        self.arguments = arguments

    def hidden(self, token_ids_T, positions_T):
        return self.model.base_model(
            input_ids=token_ids_T[None], position_ids=positions_T[None], **self.arguments
        ).last_hidden_state[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "arguments",
    [{"use_cache": True}, {"use_cache": False, "attention_mask": torch.ones(1, 21, dtype=torch.long)}],
    ids=["cache", "mask"],
)
def test_check_isolation_cache_or_mask_that_hides_the_pack_is_refused(tmp_path, attention, arguments):
    plain = AutoModelForCausalLM.from_pretrained(write_model(tmp_path), attn_implementation=attention)
    with pytest.raises(TrainingError, match="sequences see each other"):
        check_isolation(Leaking(plain, **arguments), CPU)


def test_check_isolation_leak_in_evaluation_alone_is_refused(tmp_path):
    # Gradient checkpointing switches the cache off while training, and with it the leak.
    plain = AutoModelForCausalLM.from_pretrained(write_model(tmp_path), attn_implementation="sdpa")
    plain.gradient_checkpointing_enable()
    model = Leaking(plain, use_cache=True)
    model.train()
    with pytest.raises(TrainingError, match="sequences see each other"):
        check_isolation(model, CPU)


def test_check_isolation_leak_backwards_is_refused(tmp_path):
    # Only a change of the last sequence shows it; perturbing the first alone would not.
    model = load(write_model(tmp_path))

    class Backwards(type(model)):
        def hidden(self, token_ids_T, positions_T):
            states = super().hidden(token_ids_T, positions_T)
            return states + states[-1]

    model.__class__ = Backwards
    with pytest.raises(TrainingError, match=r"changing sequence 2 .* moves the logits of sequence 0"):
        check_isolation(model, CPU)


@pytest.mark.parametrize("family", ["modeling", "configuration"])
def test_load_model_code_in_the_folder_does_not_run_unless_the_recipe_says_so(tmp_path, family):
    folder = write_model(tmp_path / "model")
    mark = tmp_path / "it-ran"
    (folder / "own_code.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    values = orjson.loads((folder / "config.json").read_bytes())
    auto_map = {"AutoModelForCausalLM": "own_code.OwnForCausalLM", "AutoConfig": "own_code.OwnConfig"}
    if family == "configuration":
        values |= {"model_type": "own"}
    (folder / "config.json").write_bytes(orjson.dumps(values | {"auto_map": auto_map}))
    if family == "configuration":  # a model that only its own code can build
        with pytest.raises(InputError, match=r"training\.trust_remote_code"):
            load(folder)
    else:  # the library's own class is taken
        assert type(load(folder).model).__module__.startswith("transformers.models.llama")
    assert not mark.exists()
    trusted = load_model(folder, precision="fp32", trust_remote_code=True, gradient_checkpointing=False)
    assert mark.exists() and type(trusted.model).__name__ == "OwnForCausalLM"


def test_load_model_weights_that_are_not_all_there_are_refused(tmp_path):
    folder = write_model(tmp_path)
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight \(1 in all\)"):
        load(folder)
